"""SentFile: a file of the controller that hosts get, for content that is too large for a command's text.

It is one resource for all hosts. With a `remote.CopyToRemote` for each host, the engine would read and hash
the file for each of them, in each preview.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions, dynamic

from components.hosts.host import after_hosts, ssh_commands
from components.hosts.remote import HostError, messages_without_traceback, send
from components.shared.provider import differ

if TYPE_CHECKING:
    from components.hosts.host import Host

SECONDS = 900
"""Time limit for each host."""
AT_ONCE = 8
"""To how many hosts it is sent at the same time."""
FILE = ("digest", "target")
"""The inputs whose change concerns all hosts."""


def missing(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """The hosts that lack the file: all after a change of it, else those that were added or replaced."""
    if differ(FILE, olds, news):
        return list(news["hosts"])
    former = olds["hosts"]
    return [host for host, replaced_with in news["hosts"].items() if former.get(host) != replaced_with]


class _SentFileProvider(dynamic.ResourceProvider):
    def _send(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        source, target = Path(news["source"]), news["target"]

        def failure(host: str) -> str | None:
            answer = send(news["ssh"][host], source, target, SECONDS)
            cause = answer.error or f"exit code {answer.status}"
            return f"{host}: {source} was not copied to {target}: {cause}" if answer.status else None

        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            failures = [text for text in pool.map(failure, missing(olds, news)) if text]
        if failures:
            advice = "next: see that the host answers and has free space; then run 'pulumi up' again"
            with messages_without_traceback():
                raise HostError("\n".join([*failures, advice]))
        return dict(news)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("sent", self._send({}, props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ((*FILE, "hosts"), olds, news))

    def update(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(self._send(olds, news))


class SentFile(dynamic.Resource, module="calico-lab", name="SentFile"):
    """A file that hosts have; a host that is added or replaced gets it too. Deletion leaves it there."""

    def __init__(
        self,
        name: str,
        source: Path,
        hosts: Sequence["Host"],
        *,
        digest: str,
        target: str,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Send the file.

        Args:
            name: The resource's name.
            source: The file, from the project's folder.
            hosts: The hosts that get it.
            digest: SHA-256 of its content.
            target: Its absolute path on each host, where the SSH user may write.
            opts: More resource options, usually the parent.
        """
        reached = [host for host in hosts if not host.lost]
        props = {
            "source": str(source),
            "digest": digest,
            "target": target,
            "hosts": {host.name: host.replaced_with for host in reached},
            "ssh": ssh_commands(reached),
        }
        super().__init__(_SentFileProvider(), name, props, after_hosts(reached, opts))
