"""A script on a host over SSH, from this process and not as a resource: for what has to be asked at once.

Every call is a connection of its own with a bound in time; what stands in the way comes back as an answer.
"""

import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The project's folder, from which the paths in ssh commands are meant."""
# The script comes by standard input, so that nothing of it stands in the process list.
# sudo drops SSH_CONNECTION (sshd(8)), by which a host knows the operator's address.
_AS_ROOT = (
    'if [ "$(id -u)" = 0 ]; then exec bash -s; '
    """else exec sudo -n bash -c 'SSH_CONNECTION=$0 exec bash -s' "$SSH_CONNECTION"; fi"""
)


class HostError(Exception):
    """A step on a host failed; the message names the host, the step, the cause and what to do next."""


@contextmanager
def messages_without_traceback() -> Iterator[None]:
    """Let a HostError reach the terminal as its message.

    Pulumi's server for dynamic resources reports an error as `traceback.format_exc()`, which heeds this
    setting of `sys`. Other exceptions are faults of this program and keep their traceback.
    """
    try:
        yield
    except HostError:
        sys.tracebacklimit = 0
        raise


@dataclass(frozen=True)
class Answer:
    """What a host said."""

    status: int
    """The script's exit status; 255 where SSH itself failed, 124 where the time was over."""
    text: str
    """Its standard output."""
    error: str
    """Its standard error, or why there was no answer."""

    @property
    def reached(self) -> bool:
        """Whether the host answered at all."""
        return self.status not in (124, 255)


def run(ssh: str, script: str, variables: Mapping[str, str] | None = None, seconds: float = 30) -> Answer:
    """Run a bash script as root on a host.

    Args:
        ssh: The ssh command that reaches it, as the stack's output `ssh` has it.
        script: The script.
        variables: Exported to it.
        seconds: How long it may take, the connection included.
    """
    try:
        done = subprocess.run(
            [*shlex.split(ssh), _AS_ROOT],
            input=_with(variables or {}, script),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {seconds:g} s")
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def watch(
    ssh: str,
    script: str,
    variables: Mapping[str, str],
    seconds: float,
    *,
    ready: Callable[[], object],
    over: threading.Event,
) -> Answer:
    """Run a bash script as root on a host that says `ready` and goes on until its standard input ends.

    Whatever ends this process or the connection ends the script's standard input too.

    Args:
        ssh: The ssh command that reaches it.
        script: The script.
        variables: Exported to it.
        seconds: How long all of it may take.
        ready: Called when the script is ready, or can no more become so.
        over: Ends it.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            [*shlex.split(ssh), _AS_ROOT],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        ) as process,
    ):
        late = threading.Timer(seconds, process.kill)
        late.start()
        assert process.stdin and process.stdout  # noqa: S101 - they are pipes
        said = []
        with suppress(BrokenPipeError):
            process.stdin.write(_with(variables, script))
            process.stdin.flush()
        for line in process.stdout:
            if line == "ready\n":
                break
            said.append(line)
        ready()
        over.wait(seconds)
        with suppress(BrokenPipeError):
            process.stdin.close()
        said.extend(process.stdout)
        status = process.wait()
        late.cancel()
        if status < 0:
            return Answer(124, "".join(said), f"no answer within {seconds:g} s")
        errors.seek(0)
        return Answer(status, "".join(said), errors.read().strip())


def _with(variables: Mapping[str, str], script: str) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*exports, script])


def ask(
    ssh: Mapping[str, str], script: str, variables: Mapping[str, Mapping[str, str]], seconds: float = 30
) -> dict[str, Answer]:
    """Run a script on several hosts at once.

    Args:
        ssh: The ssh command by host.
        script: The script.
        variables: By host, what is exported to it.
        seconds: How long each host may take.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(ssh))) as pool:
        answers = pool.map(lambda host: run(ssh[host], script, variables.get(host), seconds), ssh)
        return dict(zip(ssh, answers, strict=True))
