"""The steps of a run as the person sees them: which of how many, what it took, how long."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from toolchain import cache
from toolchain.errors import ToolchainError

SIGN_OF_LIFE = 10.0
"""Seconds between two lines of a build that goes on."""
TAIL = 15
"""Lines of its log that a failing command shows."""


class Step:
    """One step that is being done."""

    def __init__(self, position: str, name: str) -> None:
        self.name = name
        self.result = "done"
        self._position = position
        self._start = time.monotonic()
        self._announced = False

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Tell what is being done; only what takes time is worth a line."""
        if not self._announced:
            print(f"{self._position} {self.name} ...", flush=True)
            self._announced = True
        print(f"      {text}", flush=True)

    def finish(self) -> None:
        """Print the step's line."""
        print(f"{self._position} {self.name}: {self.result} ({self.seconds:.1f} s)", flush=True)

    def run(
        self,
        what: str,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command that may take minutes, and show that it lives; its output goes to a log.

        Args:
            what: What it does, for the person.
            *command: The program and its arguments.
            cwd: The folder it runs in.
            env: Its whole environment; this process's own when absent.

        Raises:
            ToolchainError: With the end of the log, when the command fails.
        """
        self.say(what)
        log = cache.root() / "logs" / f"{self.name.replace(' ', '-')}-{os.getpid()}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # A session of its own, so that an interrupt ends the whole build and not only its first program.
        with (
            log.open("w") as output,
            subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                self._watch(process, log)
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            tail = "\n".join(f"  | {line}" for line in _lines(log)[-TAIL:])
            raise ToolchainError(
                f"{what}: {Path(command[0]).name} ended with {process.returncode}\n{tail}\n"
                f"The whole log: {log}\nRemove the cause and run `make setup` again: what is done is kept."
            )
        log.unlink()

    def _watch(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        start = time.monotonic()
        while True:
            try:
                process.wait(SIGN_OF_LIFE)
            except subprocess.TimeoutExpired:
                last = (_lines(log) or ["..."])[-1]
                print(f"      {time.monotonic() - start:4.0f} s  {last[:90]}", flush=True)
            else:
                return


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


class Steps:
    """Numbers the steps of a run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Do one step; its line is printed when it is done."""
        self._count += 1
        step = Step(f"[{self._count}/{self._total}]", name)
        try:
            yield step
        except ToolchainError as error:
            raise ToolchainError(f"[{self._count}/{self._total}] {name}: {error}") from error
        step.finish()
