"""The one way in which the command asks hosts: a script by SSH, all hosts at once, in bounded time."""

import shlex
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab.stack import PROJECT

# The script comes by standard input, so that nothing of it stands in the process list.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec bash -s; else exec sudo -n bash -s; fi'


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
    exports = [f"export {name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    try:
        done = subprocess.run(
            [*shlex.split(ssh), _AS_ROOT],
            input="\n".join([*exports, script]),
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
