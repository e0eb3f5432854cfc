"""The command line: mistakes and interrupts end with a message and an exit code, not with a traceback."""

import ast
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain import calico, pulumi
from toolchain.golang import Go
from workspace.__main__ import forecast

ROOT = Path(__file__).parents[3]
WORKSPACE = [sys.executable, "-m", "workspace"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WORKSPACE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_stack_that_nobody_has_described_is_refused_first() -> None:
    done = run("setup", "--stack", "other")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("workspace: there is no Pulumi.other.yaml; write one like Pulumi.lab.yaml")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so(number: signal.Signals, own_cache: Path) -> None:
    # A lock that somebody else holds is something to wait for.
    own_cache.mkdir()
    with (own_cache / "uv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            [*WORKSPACE, "lock"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "      uv: waiting for another run that makes it\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "workspace: interrupted; what is done is kept, lock goes on from there\n"


@pytest.mark.parametrize(("version", "minor"), [((3, 10, 12), "3.10"), ((3, 6, 9), "3.6")])
def test_an_old_python_is_told_from_before_anything_else_is_read(
    version: tuple[int, int, int], minor: str
) -> None:
    old = f"import runpy, sys; sys.version_info = {version}; runpy.run_module('workspace', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", old], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"is Python {minor}, and the lab needs 3.11 or newer" in done.stderr
    assert "make up PYTHON=python3.11" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_could_read_what_tells_it() -> None:
    # Python 3.6 is what f-strings need; the parser refuses what is newer.
    ast.parse((ROOT / "workspace/__init__.py").read_text(), feature_version=(3, 6))


FORECASTS = {
    "everything": (
        700.0,
        420.0,
        ["Pulumi and its plugins, because get.pulumi.com", " and Calico", "10 minutes"],
    ),
    "official-pulumi": (0.0, 420.0, ["compiles Calico\n", "about 4 minutes"]),
    "driver-alone": (0.0, 20.0, ["about 1 minutes"]),
}


@pytest.mark.parametrize(("pulumi_s", "calico_s", "said"), FORECASTS.values(), ids=FORECASTS)
def test_a_first_run_says_what_it_compiles_why_and_for_how_long(
    *, pulumi_s: float, calico_s: float, said: list[str], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulumi, "to_build", lambda _: pulumi_s)
    monkeypatch.setattr(calico, "to_build", lambda _: calico_s)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    text = forecast(go)
    for part in said:
        assert part in text
    assert "2 processors" in text


def test_a_run_that_compiles_nothing_forecasts_nothing(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi, "to_build", lambda _: 0.0)
    monkeypatch.setattr(calico, "to_build", lambda _: 0.0)
    assert not forecast(go)


@pytest.mark.parametrize("verb", ["setup", "current-engine", "lock", "sweep", "stop-engine", "clean"])
def test_every_verb_has_its_help(verb: str) -> None:
    assert verb in run("--help").stdout
    assert run(verb, "--help").returncode == 0
