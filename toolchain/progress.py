"""Steps of a run: they print their number, result and time, and run commands with a log."""

import contextlib
import itertools
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from toolchain import cache
from toolchain.errors import STOP, CommandError, StoppedError, ToolchainError

PROGRESS_S = 10.0
"""Seconds between two progress lines of a command."""
POLL_S = 0.2
"""Seconds between two checks whether to stop."""
STOP_LIMIT_S = 12
"""Seconds within which a lane has to end its commands."""
TAIL = 15
"""Lines of the log in the error of a failed command."""


class Step:
    """A step that is running."""

    def __init__(self, position: str, name: str) -> None:
        self.name = name
        self.result = "done"
        self.processor_s = 0.0
        """Seconds of processor time of the step's commands."""
        self._position = position
        self._start = time.monotonic()
        self._announced = False

    @property
    def seconds(self) -> float:
        """Seconds since the step has started."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Print what the step is doing."""
        # Each line has the step's number, because two steps may run at the same time.
        if not self._announced:
            print(f"{self._position} {self.name} ...", flush=True)
            self._announced = True
        print(f"{self._position}   {text}", flush=True)

    def finish(self) -> None:
        """Print the step's result and time."""
        processor = f", {self.processor_s:.0f} s of processor time" if self.processor_s >= 1 else ""
        print(f"{self._position} {self.name}: {self.result} ({self.seconds:.1f} s{processor})", flush=True)

    def run(
        self,
        what: str,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        limit_s: float = math.inf,
    ) -> None:
        """Run a command that may take minutes, and print its progress; its output goes to a log.

        Args:
            what: What it does, for the operator.
            *command: The program and its arguments.
            cwd: The folder it runs in.
            env: Its whole environment; by default that of this process.
            limit_s: Seconds after which it is killed and counts as failed.

        Raises:
            CommandError: The command fails; the message has the end of the log.
            StoppedError: The run ends for another reason.
        """
        self.say(what)
        name = f"{self.name.replace(' ', '-')}-{os.getpid()}.log"
        log = cache.root() / "logs" / name
        log.parent.mkdir(parents=True, exist_ok=True)
        child = _Child(command, log, cwd, env)
        try:
            child.start()
            self._watch(child, log, limit_s)
        except BaseException:
            child.force()
            raise
        finally:
            self.processor_s += child.processor_s
        if child.code:
            lines = _lines(log) or [""]
            tail = "\n".join(f"  | {line}" for line in lines[-TAIL:])
            ended = f"did not end within {limit_s:.0f} s" if child.forced else f"ended with {child.code}"
            message = (
                f"{what}: {Path(command[0]).name} {ended}\n{tail}\n"
                f"The whole log: {log}\nNext: remove the cause and run `make setup` again; the rest is kept."
            )
            raise CommandError(message, lines[-1].strip())
        log.unlink()

    def _watch(self, child: "_Child", log: Path, limit_s: float) -> None:
        start, printed_at = time.monotonic(), 0.0
        while not child.wait(POLL_S):
            if STOP.is_set():
                raise StoppedError(f"{self.name} was stopped")
            passed = time.monotonic() - start
            if passed >= limit_s:
                child.force()
                return
            if passed - printed_at >= PROGRESS_S:
                printed_at = passed
                last = (_lines(log) or ["..."])[-1]
                print(f"{self._position} {passed:4.0f} s  {last[:90]}", flush=True)


class _Child:
    """A process whose output goes to a log; it records the processor time of it and its children."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, cwd: Path | None, env: Mapping[str, str] | None
    ) -> None:
        self.processor_s = 0.0
        self.code = 0
        """Its exit code; negative after a signal."""
        self.forced = False
        self._command, self._log, self._cwd, self._env = command, log, cwd, env
        self._pid = 0
        self._error: BaseException | None = None
        self._starting, self._ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Start it in a thread, because a signal interrupts the main thread alone.

        A process whose start is interrupted there would run on, and nothing would know its ID.
        """
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            with self._log.open("w") as output, self._starting:
                if self.forced:
                    return
                # In a session of its own, so that an interrupt ends all of its processes.
                process = subprocess.Popen(
                    self._command,
                    cwd=self._cwd,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                self._pid = process.pid
            # Popen.wait does not return the resource usage.
            _, status, usage = os.wait4(process.pid, 0)
            self.code = process.returncode = os.waitstatus_to_exitcode(status)
            self.processor_s = usage.ru_utime + usage.ru_stime
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Return whether it ends within these seconds.

        Raises:
            OSError: It could not be started.
        """
        ended = self._ended.wait(seconds)
        if self._error:
            raise self._error
        return ended

    def force(self) -> None:
        """Kill it and its children; one that has not started yet does not start."""
        with self._starting:
            self.forced = True
        if not self._pid:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, number)
            if self._ended.wait(5):
                return


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def side_by_side(*lanes: Callable[[], None]) -> None:
    """Run these lanes at the same time; when one fails or the operator interrupts, the others are stopped.

    Raises:
        BaseException: The error of the lane that failed first.
    """
    STOP.clear()
    failures: list[BaseException] = []
    # Events, because after an interrupted Thread.join a running thread counts as ended.
    ends = [threading.Event() for _ in lanes]

    def run(lane: Callable[[], None], end: threading.Event) -> None:
        try:
            lane()
        except BaseException as error:
            failures.append(error)
            STOP.set()
        finally:
            end.set()

    threads = [threading.Thread(target=run, args=work, daemon=True) for work in zip(lanes, ends, strict=True)]
    try:
        for thread in threads:
            thread.start()
        for end in ends:
            while not end.wait(POLL_S):
                pass
    except BaseException:
        STOP.set()
        for thread, end in zip(threads, ends, strict=True):
            # An interrupt may come before all of them are started.
            if thread.ident:
                end.wait(STOP_LIMIT_S)
        raise
    if failures:
        raise failures[0]


class Steps:
    """The numbered steps of a run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run one step, and print its result at the end."""
        position = f"[{next(self._numbers)}/{self._total}]"
        step = Step(position, name)
        try:
            yield step
        except StoppedError:
            raise
        except ToolchainError as error:
            raise ToolchainError(f"{position} {name}: {error}") from error
        step.finish()
