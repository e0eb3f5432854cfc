"""Steps: numbers and times; a failure names the next step; an interrupt ends all commands."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from toolchain import cache, progress
from toolchain.errors import CommandError, StoppedError, ToolchainError
from toolchain.progress import Step, Steps, side_by_side


def test_step_prints_its_number_result_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(2)
    with steps.step("Go") as step:
        step.result = "from PATH"
    with steps.step("Calico") as step:
        step.say("building calico")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "[1/2] Go: from PATH (0.0 s)",
        "[2/2] Calico ...",
        "[2/2]   building calico",
        "[2/2] Calico: done (0.0 s)",
    ]


def test_run_of_a_failing_command_shows_the_log_and_the_next_step() -> None:
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


def test_run_removes_the_log_of_a_successful_command(step: Step) -> None:
    step.run("nothing", "true")
    assert not list((cache.root() / "logs").iterdir())


def test_run_prints_progress(
    step: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_S", 0.1)
    step.run("building", "sh", "-c", "echo compiling k8s.io/api; sleep 0.5")
    assert "s  compiling k8s.io/api" in capsys.readouterr().out


def test_run_interrupted_kills_the_commands_children(step: Step, tmp_path: Path) -> None:
    # A shell's background job ignores SIGINT, and this process may be one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = tmp_path / "child"

    def interrupt() -> None:
        while not (child.exists() and child.read_text().endswith("\n")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        step.run("building", "sh", "-c", f"sleep 60 & echo $! > {child}; wait")
    assert ends(int(child.read_text()))


def test_run_interrupted_while_its_command_starts_kills_it(
    step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = tmp_path / "child"

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401 - as Popen
            super().__init__(*args, **settings)
            child.write_text(str(self.pid))
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        step.run("building", "sleep", "60")
    assert ends(int(child.read_text()))


def test_run_of_an_absent_command_is_an_error(step: Step) -> None:
    with pytest.raises(FileNotFoundError, match="absent-command"):
        step.run("building", "absent-command")


def ends(process: int) -> bool:
    """Whether a process that has received a signal ends; it may stay a zombie."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(100):
        try:
            if stat.read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_run_adds_processor_time_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps(1).step("Calico") as step:
        step.run("computing", "sh", "-c", "i=0; while [ $i -lt 900000 ]; do i=$((i+1)); done")
        step.processor_s += 1
    assert step.processor_s > 1
    assert " s of processor time)" in capsys.readouterr().out


def test_run_kills_a_command_after_its_time_limit(step: Step) -> None:
    with pytest.raises(CommandError, match="waiting: sh did not end within 1 s") as raised:
        step.run("waiting", "sh", "-c", "echo connecting; sleep 60", limit_s=1)
    assert raised.value.last == "connecting"


def test_side_by_side_runs_lanes_at_the_same_time() -> None:
    both = threading.Barrier(2)
    side_by_side(lambda: _meet(both), lambda: _meet(both))


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait(20)


def test_side_by_side_stops_the_other_lane_after_a_failure(step: Step, tmp_path: Path) -> None:
    child = tmp_path / "child"
    left: list[type[BaseException]] = []

    def build() -> None:
        try:
            step.run("building", "sh", "-c", f"echo $$ > {child}; sleep 60")
        except StoppedError as error:
            left.append(type(error))
            raise

    def fail() -> None:
        while not child.exists() or not child.read_text():
            time.sleep(0.05)
        raise ToolchainError("no Docker")

    with pytest.raises(ToolchainError, match="no Docker"):
        side_by_side(build, fail)
    assert left == [StoppedError]
    assert ends(int(child.read_text()))


def test_side_by_side_interrupted_leaves_no_artifact(step: Step, tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folders: list[Path] = []

    def build(folder: Path) -> None:
        folders.append(folder)
        (folder / "half").touch()
        step.run("building", "sleep", "60")

    def interrupt() -> None:
        while not folders or not (folders[0] / "half").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda: _ignore(cache.artifact("tool", "key", build)), interrupt)
    assert not folders[0].exists()
    assert cache.find("tool", "key") is None


def _ignore(_: object) -> None:
    pass


def test_side_by_side_stops_a_lane_that_waits_for_a_lock() -> None:
    with cache.lock("tool"):

        def wait() -> None:
            cache.artifact("tool", "key", lambda _: None)

        def fail() -> None:
            raise ToolchainError("no Docker")

        with pytest.raises(ToolchainError, match="no Docker"):
            side_by_side(wait, fail)
    assert cache.find("tool", "key") is None
