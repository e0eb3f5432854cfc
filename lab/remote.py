"""The one way in which the command asks hosts: a script by SSH, all hosts at once, in bounded time."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from components.hosts.shell import Answer, run, watch

__all__ = ["Answer", "ask", "run", "watch"]


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
