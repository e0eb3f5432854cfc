"""The command line: errors and interrupts end with a message and an exit code, without a traceback."""

import ast
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WORKSPACE = [sys.executable, "-m", "workspace"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WORKSPACE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_setup_of_a_stack_without_config_is_an_error() -> None:
    done = run("setup", "--stack", "other")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("workspace: there is no Pulumi.other.yaml; write one like Pulumi.lab.yaml")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_main_interrupted(number: signal.Signals, own_cache: Path) -> None:
    # The verb waits for the lock, which this test holds.
    own_cache.mkdir()
    with (own_cache / "uv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            [*WORKSPACE, "lock"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            waiting = process.stdout.readline()
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
    assert waiting == "      uv: waiting for another run that builds it\n"
    assert process.returncode == 130
    assert errors == "workspace: interrupted; what is done is kept; next: run lock again\n"


@pytest.mark.parametrize(("version", "minor"), [((3, 10, 12), "3.10"), ((3, 6, 9), "3.6")])
def test_python_version_that_is_too_old_is_an_error(version: tuple[int, int, int], minor: str) -> None:
    old = f"import runpy, sys; sys.version_info = {version}; runpy.run_module('workspace', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", old], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"is Python {minor}, and the lab needs 3.11 or newer" in done.stderr
    assert "make up PYTHON=python3.11" in done.stderr
    assert "Traceback" not in done.stderr


def test_python_version_check_parses_with_an_old_python() -> None:
    # 3.6, because it has f-strings; the parser rejects newer syntax.
    ast.parse((ROOT / "workspace/__init__.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("verb", ["setup", "current-engine", "ebpf", "lock", "sweep", "stop-engine", "clean"])
def test_help_of_each_verb(verb: str) -> None:
    assert verb in run("--help").stdout
    assert run(verb, "--help").returncode == 0
