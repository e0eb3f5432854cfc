"""Runs scripts on hosts over SSH from this process: for dynamic providers and for `lab`.

Each call is a new connection with a time limit. A failure is an `Answer` too, with the reason.
"""

import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).resolve().parents[2]
"""The project's folder; paths in ssh commands are relative to it."""
# sudo drops SSH_CONNECTION (sshd(8)), which has the operator's address.
_AS_ROOT = (
    'if [ "$(id -u)" = 0 ]; then exec "$@"; '
    'else exec sudo -n env "SSH_CONNECTION=${SSH_CONNECTION-}" "$@"; fi'
)


def as_root(*command: str) -> str:
    """The command line that runs a command as root, for an SSH user that is root or may use sudo.

    It is decided on the host, because an alias of ssh_config(5) does not say the user.
    """
    return f"exec sh -c {shlex.quote(_AS_ROOT)} sh {shlex.join(command)}"


# A script is read from standard input, so that the process list does not show it.
_SCRIPT = as_root("bash", "-s")


def with_variables(script: str, variables: Mapping[str, str]) -> str:
    """Put exports of shell variables in front of a script.

    The values are part of the script, because sshd refuses variables that its `AcceptEnv` does not name
    (sshd_config(5)). A script in a command line shows them in the process list of the host: pass a secret by
    standard input instead.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    return "\n".join([*exports, script])


class HostError(Exception):
    """A step on a host failed; the message names the host, the step, the cause and what to do next."""


@contextmanager
def messages_without_traceback() -> Iterator[None]:
    """Show a HostError as its message, without a traceback.

    Pulumi's server for dynamic resources reports an error as `traceback.format_exc()`, which obeys
    `sys.tracebacklimit`. Other exceptions are faults of this program and keep their traceback.
    """
    try:
        yield
    except HostError:
        sys.tracebacklimit = 0
        raise


@dataclass(frozen=True)
class Answer:
    """The result of a script on a host."""

    status: int
    """The script's exit status; 255 if SSH itself failed, 124 after the time limit."""
    text: str
    """Its standard output."""
    error: str
    """Its standard error, or why there is no answer."""

    @property
    def reached(self) -> bool:
        """Whether the script ran on the host."""
        return self.status not in (124, 255)


def run(
    ssh: str,
    script: str,
    variables: Mapping[str, str] | None = None,
    seconds: float = 30,
    *,
    stdin: str = "",
) -> Answer:
    """Run a bash script as root on a host.

    Args:
        ssh: The ssh command that reaches it, as the stack's output `ssh` has it.
        script: The script.
        variables: Exported to it.
        seconds: Time limit, the connection included.
        stdin: The script's standard input.
    """
    text = with_variables(script, variables or {})
    return _answer(ssh, _SCRIPT, seconds, input=_before_input(text) + stdin if stdin else text)


def _before_input(script: str) -> str:
    """A script that can read what follows it on standard input.

    bash reads a group of commands to its end before it runs it.
    """
    return f"{{\n{script}\nexit\n}}\n"


def _answer(ssh: str, command: str, seconds: float, **stdin: Any) -> Answer:  # noqa: ANN401 - as subprocess.run
    """Run a command on a host, with `input` or `stdin` as for `subprocess.run`."""
    try:
        done = subprocess.run(
            [*shlex.split(ssh), command],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            **stdin,
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {seconds:g} s")
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def send(ssh: str, source: Path, target: str, seconds: float) -> Answer:
    """Copy a file to a host, as the SSH user; it gets mode 0600.

    Args:
        ssh: The ssh command that reaches it.
        source: The file on the controller, from the project's folder.
        target: Its absolute path on the host; it appears there when all of it has arrived.
        seconds: Time limit, the connection included.
    """
    draft, final = shlex.quote(f"{target}.new"), shlex.quote(target)
    # The size is compared, because cat does not see that a connection has ended early.
    size = (PROJECT / source).stat().st_size
    script = f"umask 077; cat >{draft} && [ $(wc -c <{draft}) = {size} ] && mv {draft} {final}"
    with (PROJECT / source).open("rb") as stream:
        return _answer(ssh, f"exec sh -c {shlex.quote(script)}", seconds, stdin=stream)


def watch(
    ssh: str,
    script: str,
    variables: Mapping[str, str],
    seconds: float,
    *,
    ready: Callable[[], object],
    over: threading.Event,
) -> Answer:
    """Run a bash script as root on a host; it prints `ready`, and runs until its standard input ends.

    When this process or the connection ends, the script's standard input ends too.

    Args:
        ssh: The ssh command that reaches it.
        script: The script.
        variables: Exported to it.
        seconds: Time limit for all of it.
        ready: Called when the script is ready, or has ended before that.
        over: Ends the script.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            [*shlex.split(ssh), _SCRIPT],
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
            process.stdin.write(with_variables(script, variables))
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


def transfer(
    source: tuple[str, str], target: tuple[str, str], variables: Mapping[str, str], seconds: float
) -> str:
    """Send what a script on one host prints to the standard input of a script on another.

    Args:
        source: The ssh command of the one host, and its bash script, run as root.
        target: Those of the other.
        variables: Exported to both scripts.
        seconds: Time limit for all of it.

    Returns:
        What went wrong; empty when both scripts have succeeded.
    """
    scripts = [_before_input(with_variables(script, variables)) for _, script in (source, target)]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        _start(source[0], stdout=subprocess.PIPE, stderr=errors) as sender,
        _start(target[0], stdout=subprocess.DEVNULL, stderr=errors) as receiver,
    ):
        # Without its input, the receiver ends too.
        late = threading.Timer(seconds, sender.kill)
        late.start()
        assert sender.stdin and sender.stdout and receiver.stdin  # noqa: S101 - they are pipes
        with suppress(BrokenPipeError):
            sender.stdin.write(scripts[0].encode())
            sender.stdin.close()
            receiver.stdin.write(scripts[1].encode())
            shutil.copyfileobj(sender.stdout, receiver.stdin)
        with suppress(BrokenPipeError):
            receiver.stdin.close()
        sender.stdout.close()
        statuses = (sender.wait(), receiver.wait())
        late.cancel()
        if statuses == (0, 0):
            return ""
        if statuses[0] == -signal.SIGKILL:
            return f"not done within {seconds:g} s"
        errors.seek(0)
        return errors.read().strip() or f"exit codes {statuses[0]} and {statuses[1]}"


def _start(ssh: str, *, stdout: int, stderr: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*shlex.split(ssh), _SCRIPT], cwd=PROJECT, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr
    )


def ask(
    ssh: Mapping[str, str], script: str, variables: Mapping[str, Mapping[str, str]], seconds: float = 30
) -> dict[str, Answer]:
    """Run a script on several hosts at once.

    Args:
        ssh: The ssh command by host.
        script: The script.
        variables: What is exported to it, by host.
        seconds: Time limit for each host.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(ssh))) as pool:
        answers = pool.map(lambda host: run(ssh[host], script, variables.get(host), seconds), ssh)
        return dict(zip(ssh, answers, strict=True))
