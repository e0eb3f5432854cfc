"""Steps: which of how many, what it took; a failure shows what to do; an interrupt ends the build."""

import os
import signal
import threading
from pathlib import Path

import pytest

from toolchain import cache, progress
from toolchain.errors import ToolchainError
from toolchain.progress import Step, Steps


def test_a_step_says_which_of_how_many_it_is_and_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(2)
    with steps.step("Go") as step:
        step.result = "from PATH"
    with steps.step("Calico") as step:
        step.say("building calico")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "[1/2] Go: from PATH (0.0 s)",
        "[2/2] Calico ...",
        "      building calico",
        "[2/2] Calico: done (0.0 s)",
    ]


def test_a_failing_command_shows_the_end_of_its_log_and_the_next_step() -> None:
    with pytest.raises(ToolchainError) as raised, Steps(9).step("Calico") as step:
        step.run("building calico", "sh", "-c", "seq 100; echo no such module >&2; exit 3")
    message = str(raised.value)
    assert message.startswith("[1/9] Calico: building calico: sh ended with 3")
    assert "  | no such module" in message
    assert "  | 100" in message
    assert "  | 50" not in message
    assert "run `make setup` again" in message
    log = next((cache.root() / "logs").iterdir())
    assert str(log) in message
    assert "50" in log.read_text()


def test_a_command_that_succeeds_leaves_no_log(step: Step) -> None:
    step.run("nothing", "true")
    assert not list((cache.root() / "logs").iterdir())


def test_a_long_command_shows_that_it_lives(
    step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.1)
    step.run("building", "sh", "-c", "echo compiling k8s.io/api; sleep 0.5")
    assert "s  compiling k8s.io/api" in capsys.readouterr().out


def test_an_interrupt_ends_the_whole_build(step: Step, tmp_path: Path) -> None:
    # What runs in a shell's background ignores interrupts, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = tmp_path / "child"
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        step.run("building", "sh", "-c", f"sleep 60 & echo $! > {child}; wait")
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    # Ended, and perhaps not yet waited for by init.
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
