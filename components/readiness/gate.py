"""Gate: what has to be true of a host before anything builds on it; and when it is not, what is in the way.

A script on the host waits, for a bounded time, and says what it sees when that is over. Only the controller
reaches both ends of a connection: so it is the gate that then looks, by `diagnosis.obstacle`,
which rule on which host keeps the host and its peers apart. A rule that was left behind is found like that.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pulumi import Input, ResourceOptions, dynamic

from components.hosts.host import Host
from components.hosts.remote import HostError, messages_without_traceback, run
from components.shared.provider import differ
from diagnosis.obstacle import End, obstacle

# What a script may need for its last words, when its own time is over.
GRACE_SECONDS = 60
COMPARED = ("script", "variables", "peers", "port", "triggers")


def obstacles(props: Mapping[str, Any]) -> list[str]:
    """What keeps a host and its peers apart, in either direction; a sentence each."""
    host = End(**props["end"])
    peers = [End(**peer) for peer in props["peers"]]
    ways = [way for peer in peers for way in ((host, peer), (peer, host))]
    with ThreadPoolExecutor(max_workers=max(1, len(ways))) as pool:
        found = pool.map(lambda way: obstacle(way[0], way[1], int(props["port"])), ways)
        return [sentence for sentence in found if sentence]


def _wait(props: Mapping[str, Any]) -> dict[str, Any]:
    """Run the script.

    Raises:
        HostError: The condition is not met in time; the message has what the host and the kernels say.
    """
    seconds = int(props["variables"]["SECONDS_ALLOWED"]) + GRACE_SECONDS
    answer = run(props["end"]["ssh"], props["script"], props["variables"], seconds)
    if answer.status:
        said = answer.error if answer.reached else f"{props['end']['host']}: {answer.error}"
        raise HostError("\n".join([said, *obstacles(props)]))
    return dict(props)


class _GateProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        with messages_without_traceback():
            return dynamic.CreateResult(f"{props['end']['host']}-gate", _wait(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        # How the host is reached is no condition of it.
        return dynamic.DiffResult(changes=differ(COMPARED, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        with messages_without_traceback():
            return dynamic.UpdateResult(_wait(news))


class Gate(dynamic.Resource, module="calico-lab", name="Gate"):
    """A condition that was met when the resource was made, and whenever its input has changed since."""

    def __init__(
        self,
        name: str,
        host: Host,
        script: Path,
        *,
        peers: Sequence[Host],
        port: int,
        seconds: int,
        variables: Mapping[str, str],
        triggers: Sequence[Input[object]],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Wait for the condition.

        Args:
            name: The resource is called `<host>-<name>`.
            host: The host.
            script: A bash script in the component's folder; it gets `SECONDS_ALLOWED` and fails after them.
            peers: The hosts that it needs, and that need it.
            port: The TCP port of each on which they have to reach each other.
            seconds: How long to wait.
            variables: Exported to the script; never secret.
            triggers: Values whose change has the condition looked at anew.
            opts: More resource options, usually the parent.
        """
        props = {
            "end": _end(host),
            "script": script.read_text(),
            "variables": {**variables, "HOST": host.name, "SECONDS_ALLOWED": str(seconds)},
            "peers": [_end(peer) for peer in peers],
            "port": port,
            "triggers": list(triggers),
        }
        super().__init__(_GateProvider(), f"{host.name}-{name}", props, host.options(opts))


def _end(host: Host) -> dict[str, Input[str]]:
    return {"host": host.name, "address": host.address, "ssh": host.ssh}
