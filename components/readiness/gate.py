"""Gate: waits after a change until a condition holds on some hosts; if it does not, says what is in the way.

A script on each host waits for a bounded time, and prints what it sees when that is over. Only the controller
reaches both ends of a connection. So the gate then asks, by `diagnosis.obstacle`, which rule on which host
stops the connections between the host and its peers. It finds a rule that was left behind, whoever made it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import Input, ResourceOptions, dynamic

from components.hosts.host import after_hosts, ssh_commands
from components.hosts.remote import HostError, messages_without_traceback, run
from components.shared.provider import differ

if TYPE_CHECKING:
    from components.hosts.host import Host
    from diagnosis.obstacle import SshHost

# How long a script may print after its own time is over.
GRACE_SECONDS = 60
COMPARED = ("script", "checks", "port", "seconds", "triggers")


@dataclass(frozen=True)
class Check:
    """The condition on one host."""

    host: "Host"
    variables: Mapping[str, str]
    """Exported to the script; never secret."""
    peers: Sequence["Host"] = ()
    """The hosts that it needs, and that need it."""


def _ask(check: Mapping[str, Any], props: Mapping[str, Any]) -> str | None:
    """Run the script on one host; return what the host says if the condition does not hold."""
    host = check["host"]
    variables = {**check["variables"], "HOST": host, "SECONDS_ALLOWED": str(int(props["seconds"]))}
    answer = run(props["ssh"][host], props["script"], variables, int(props["seconds"]) + GRACE_SECONDS)
    if not answer.status:
        return None
    return answer.error if answer.reached else f"{host}: {answer.error}"


def _connections(check: Mapping[str, Any], props: Mapping[str, Any]) -> list[tuple["SshHost", "SshHost"]]:
    """The connections between a host and its peers, in both directions."""
    # Here, because most runs have no gate that fails, and the import takes longer than all gates.
    from diagnosis.obstacle import SshHost  # noqa: PLC0415

    hosts = {check["host"]: check["address"], **check["peers"]}
    host, *peers = (SshHost(name, address, props["ssh"][name]) for name, address in hosts.items())
    return [pair for peer in peers for pair in ((host, peer), (peer, host))]


def wait(props: Mapping[str, Any]) -> dict[str, Any]:
    """Run the script on all hosts at once.

    Raises:
        HostError: The condition does not hold in time; the message has what the hosts and the kernels say.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(props["checks"]))) as pool:
        answers = pool.map(lambda check: _ask(check, props), props["checks"])
        failed = [(said, check) for said, check in zip(answers, props["checks"], strict=True) if said]
    if failed:
        raise HostError(explained(failed, props))
    return dict(props)


def explained(failed: Sequence[tuple[str, Mapping[str, Any]]], props: Mapping[str, Any]) -> str:
    """What the checks that failed say, each with the rules that stop the host's connections."""
    from diagnosis.obstacle import obstacle  # noqa: PLC0415 - as in _connections

    # Two hosts that are peers have the same connections, and a trace of one takes seconds.
    connections = {pair for _, check in failed for pair in _connections(check, props)}
    with ThreadPoolExecutor(max_workers=max(1, len(connections))) as pool:
        tried = {pair: pool.submit(obstacle, *pair, int(props["port"])) for pair in connections}
    lines = []
    for said, check in failed:
        causes = (tried[pair].result() for pair in _connections(check, props))
        lines += [said, *(cause for cause in causes if cause)]
    return "\n".join(lines)


class GateProvider(dynamic.ResourceProvider):
    """Waits for the condition; a component may have one that brings it about first."""

    def wait(self, props: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until the condition holds on all hosts.

        Raises:
            HostError: It does not hold in time.
        """
        return wait(props)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        """Wait for the first time."""
        with messages_without_traceback():
            return dynamic.CreateResult("gate", self.wait(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        """Compare what the condition is made of."""
        # The ssh commands by which the hosts are reached are not part of the condition.
        return dynamic.DiffResult(changes=differ(COMPARED, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        """Wait again."""
        with messages_without_traceback():
            return dynamic.UpdateResult(self.wait(news))


# The provider's name in the state of labs that an earlier program has made.
_GateProvider = GateProvider


class Gate(dynamic.Resource, module="calico-lab", name="Gate"):
    """A condition that held when the resource was created, and after each change of its inputs."""

    def __init__(
        self,
        name: str,
        script: Path,
        checks: Sequence[Check],
        *,
        seconds: int,
        triggers: Sequence[Input[object]],
        port: int = 0,
        variables: Mapping[str, str] | None = None,
        provider: GateProvider | None = None,
        others: Sequence["Host"] = (),
        settings: Mapping[str, Input[object]] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Wait for the condition.

        Args:
            name: The resource's name.
            script: A bash script in the component's folder; it gets `HOST` and `SECONDS_ALLOWED`, and fails
                after them.
            checks: The hosts on which it runs, all at once.
            seconds: How long to wait.
            triggers: Values whose change has the condition checked again.
            port: The TCP port on which hosts and peers have to reach each other; needless without peers.
            variables: Exported to the script on each host; never secret.
            provider: Brings the condition about first; None only waits.
            others: More hosts that the provider may ask; the gate does not wait for them.
            settings: What the provider needs to know; never secret.
            opts: More resource options, usually the parent.
        """
        hosts = {host.name: host for check in checks for host in (check.host, *check.peers)}
        props = {
            "script": script.read_text(),
            "checks": [
                {
                    "host": check.host.name,
                    "address": check.host.address,
                    "variables": {**(variables or {}), **check.variables},
                    "peers": {peer.name: peer.address for peer in check.peers},
                }
                for check in checks
            ],
            "ssh": ssh_commands([*hosts.values(), *others]),
            "port": port,
            "seconds": seconds,
            "triggers": list(triggers),
            **({"settings": dict(settings)} if settings else {}),
        }
        super().__init__(provider or GateProvider(), name, props, after_hosts(hosts.values(), opts))
