"""The command line: mistakes and interrupts end with a message and an exit code, not with a traceback."""

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOOLCHAIN = [sys.executable, "-m", "toolchain"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOOLCHAIN, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_stack_that_nobody_has_described_is_refused_first() -> None:
    done = run("setup", "--stack", "other")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("toolchain: there is no Pulumi.other.yaml; write one like Pulumi.lab.yaml")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so(number: signal.Signals, own_cache: Path) -> None:
    # A lock that somebody else holds is something to wait for.
    own_cache.mkdir()
    with (own_cache / "uv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            [*TOOLCHAIN, "lock"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "      uv: waiting for another run that makes it\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "toolchain: interrupted; what is done is kept, lock goes on from there\n"


@pytest.mark.parametrize("verb", ["setup", "current-engine", "lock", "sweep", "stop-engine", "clean"])
def test_every_verb_has_its_help(verb: str) -> None:
    assert verb in run("--help").stdout
    assert run(verb, "--help").returncode == 0
