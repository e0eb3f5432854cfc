"""The steps of a run as the person sees them: which of how many, what it took, how long."""

import contextlib
import itertools
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from toolchain import cache
from toolchain.errors import STOP, CommandError, StoppedError, ToolchainError

SIGN_OF_LIFE = 10.0
"""Seconds between two lines of a build that goes on."""
MOMENT = 0.2
"""Seconds until a reason to stop is seen."""
GRACE = 12
"""Seconds that a lane has to end what it has started."""
TAIL = 15
"""Lines of its log that a failing command shows."""


class Step:
    """One step that is being done."""

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
        """Since the step began."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Tell what is being done; only what takes time is worth a line."""
        # Each line has the step's number, because two steps may be under way.
        if not self._announced:
            print(f"{self._position} {self.name} ...", flush=True)
            self._announced = True
        print(f"{self._position}   {text}", flush=True)

    def finish(self) -> None:
        """Print the step's line."""
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
        """Run a command that may take minutes, and show that it lives; its output goes to a log.

        Args:
            what: What it does, for the person.
            *command: The program and its arguments.
            cwd: The folder it runs in.
            env: Its whole environment; this process's own when absent.
            limit_s: Seconds after which it is ended and has failed.

        Raises:
            CommandError: With the end of the log, when the command fails.
            StoppedError: The run ends for another reason.
        """
        self.say(what)
        name = f"{self.name.replace(' ', '-')}-{os.getpid()}.log"
        log = cache.root() / "logs" / name
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
            end = _End(process)
            try:
                self._watch(end, log, limit_s)
            except BaseException:
                end.force()
                raise
            finally:
                self.processor_s += end.processor_s
        if process.returncode:
            lines = _lines(log) or [""]
            tail = "\n".join(f"  | {line}" for line in lines[-TAIL:])
            code = process.returncode
            ended = f"did not end within {limit_s:.0f} s" if end.forced else f"ended with {code}"
            message = (
                f"{what}: {Path(command[0]).name} {ended}\n{tail}\n"
                f"The whole log: {log}\nRemove the cause and run `make setup` again: what is done is kept."
            )
            raise CommandError(message, lines[-1].strip())
        log.unlink()

    def _watch(self, end: "_End", log: Path, limit_s: float) -> None:
        start, told = time.monotonic(), 0.0
        while not end.wait(MOMENT):
            if STOP.is_set():
                raise StoppedError(f"{self.name} was given up")
            passed = time.monotonic() - start
            if passed >= limit_s:
                end.force()
                return
            if passed - told >= SIGN_OF_LIFE:
                told = passed
                last = (_lines(log) or ["..."])[-1]
                print(f"{self._position} {passed:4.0f} s  {last[:90]}", flush=True)


class _End:
    """The end of a process, with what it and its children have used."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.processor_s = 0.0
        self.forced = False
        self._process = process
        self._ended = threading.Event()
        # Popen.wait does not give the usage.
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_s = usage.ru_utime + usage.ru_stime
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Whether it ends within these seconds."""
        return self._ended.wait(seconds)

    def force(self) -> None:
        """End it and what it has started."""
        self.forced = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            if self.wait(5):
                return


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def side_by_side(*lanes: Callable[[], None]) -> None:
    """Do these at the same time; where one fails, or the operator interrupts, the others are given up.

    Raises:
        BaseException: What the first lane to fail has raised.
    """
    STOP.clear()
    failures: list[BaseException] = []
    # Events, since an interrupted Thread.join takes a thread that is alive for one that has ended.
    ends = [threading.Event() for _ in lanes]

    def do(lane: Callable[[], None], end: threading.Event) -> None:
        try:
            lane()
        except BaseException as error:
            failures.append(error)
            STOP.set()
        finally:
            end.set()

    threads = [threading.Thread(target=do, args=work, daemon=True) for work in zip(lanes, ends, strict=True)]
    try:
        for thread in threads:
            thread.start()
        for end in ends:
            while not end.wait(MOMENT):
                pass
    except BaseException:
        STOP.set()
        for thread, end in zip(threads, ends, strict=True):
            # An interrupt may come while they are being started.
            if thread.ident:
                end.wait(GRACE)
        raise
    if failures:
        raise failures[0]


class Steps:
    """Numbers the steps of a run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Do one step; its line is printed when it is done."""
        position = f"[{next(self._numbers)}/{self._total}]"
        step = Step(position, name)
        try:
            yield step
        except StoppedError:
            raise
        except ToolchainError as error:
            raise ToolchainError(f"{position} {name}: {error}") from error
        step.finish()
