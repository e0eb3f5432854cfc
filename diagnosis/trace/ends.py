"""The two ends of a packet's way: who is meant by what a person types. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from diagnosis.facts import Container, HostFacts
from diagnosis.status import Finding
from workspace.outputs import Outputs

# The lab's own containers are known by what they are, too: `notebook`.
_PREFIX = "calico-lab-"


class NoWayError(Exception):
    """A packet cannot even be sent; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(f"{finding.where}: {finding.what}")


class AsHostError(NoWayError):
    """A container has no network but its host's: what it sends and gets is the host's."""

    def __init__(self, host: str, container: str, finding: str) -> None:
        self.host = host
        super().__init__(
            Finding(f"{host}/{container}", "has its host's own network, and sends as the host", finding)
        )


@dataclass(frozen=True)
class End:
    """One end of the way."""

    address: str
    host: str | None = None
    """The host that it is, or that its container is on; None for an address that nobody in the lab has."""
    container: str | None = None
    """Its container's name; None where it is none."""

    @property
    def name(self) -> str:
        """How it is called: `a0/web`, `a0`, or its address."""
        return "/".join(part for part in (self.host, self.container) if part) or self.address

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.host else self.address


def source(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> End:
    """Find the container that sends.

    Args:
        word: `host/name`, a name that one container alone has, or its address on the lab's network.
        outputs: The stack's outputs.
        hosts: What the hosts said of themselves.

    Raises:
        ValueError: It is no container of the lab; the message says which there are.
        NoWayError: It is one, but cannot send.
    """
    found = _container(word, outputs, hosts)
    if found is None:
        raise ValueError(
            f"{word}: is no container on the lab's hosts; on {outputs.network} are "
            f"{_known(hosts) or 'none'}{_silent(hosts)}"
        )
    return found


def target(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> End:
    """Find the container, the host or the address that the packet goes to.

    Args:
        word: As for `source`, or a host, or any IPv4 address.
        outputs: The stack's outputs.
        hosts: What the hosts said of themselves.

    Raises:
        ValueError: It is none of these.
        NoWayError: It is a container that has no address.
    """
    try:
        if found := _container(word, outputs, hosts):
            return found
    except AsHostError as error:
        return End(outputs.hosts[error.host], error.host)
    for host, address in outputs.hosts.items():
        if word in (host, address):
            return End(address, host)
    try:
        return End(str(IPv4Address(word)))
    except ValueError:
        raise ValueError(
            f"{word}: is neither an IPv4 address, nor a host ({', '.join(outputs.hosts)}), nor a container; "
            f"on {outputs.network} are {_known(hosts) or 'none'}{_silent(hosts)}"
        ) from None


def _container(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> End | None:
    host, slash, name = word.rpartition("/")
    if slash and host not in outputs.hosts:
        raise ValueError(f"{word}: {host} is not a host of the lab; they are {', '.join(outputs.hosts)}")
    meant = [
        (where, container)
        for where, container in _containers(hosts)
        if word == container.address
        or (name in (container.name, container.name.removeprefix(_PREFIX)) and host in ("", where))
    ]
    if len(meant) > 1:
        names = ", ".join(f"{where}/{container.name}" for where, container in meant)
        raise ValueError(f"{word}: may be any of {names}")
    if not meant:
        return None
    [(host, container)] = meant
    if container.as_host:
        raise AsHostError(
            host, container.name, f"lab why {host} HOST PROTO/PORT, or trace from a container on the network"
        )
    if container.state == "paused":
        raise NoWayError(
            Finding(f"{host}/{container.name}", "is paused, and neither sends nor answers",
                    f"{outputs.ssh[host]} docker unpause {container.name}")
        )  # fmt: skip
    if container.state != "running":
        raise NoWayError(
            Finding(f"{host}/{container.name}", f"is {container.state}, and has no network without a process",
                    f"{outputs.ssh[host]} docker start {container.name}")
        )  # fmt: skip
    if container.address is None:
        raise NoWayError(
            Finding(f"{host}/{container.name}", f"is not on {outputs.network}: Calico gave it no interface",
                    f"{outputs.ssh[host]} docker network connect {outputs.network} {container.name}")
        )  # fmt: skip
    return End(container.address, host, container.name)


def _containers(hosts: Mapping[str, HostFacts]) -> Iterator[tuple[str, Container]]:
    for host, seen in hosts.items():
        for container in seen.containers:
            yield host, container


def _known(hosts: Mapping[str, HostFacts]) -> str:
    return ", ".join(f"{host}/{one.name}" for host, one in _containers(hosts) if one.address)


def _silent(hosts: Mapping[str, HostFacts]) -> str:
    silent = [host for host, seen in hosts.items() if not seen.complete]
    return f" ({', '.join(silent)} did not say)" if silent else ""
