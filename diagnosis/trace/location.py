"""Source and target of a trace: finds the container, host or address that an argument names. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from diagnosis.facts import Container, HostFacts
from diagnosis.finding import Finding
from workspace.outputs import Outputs

# The containers of the lab's services are accepted without this prefix: `notebook`.
_PREFIX = "calico-lab-"


class NoNetworkError(Exception):
    """A container cannot send or receive on the lab's network; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(f"{finding.where}: {finding.what}")


class HostNetworkError(NoNetworkError):
    """A container runs with `--network host`: its packets are the host's."""

    def __init__(self, host: str, container: str, next_step: str) -> None:
        self.host = host
        super().__init__(
            Finding(f"{host}/{container}", "has its host's own network, and sends as the host", next_step)
        )


@dataclass(frozen=True)
class Location:
    """An address, and the host and container that have it."""

    address: str
    host: str | None = None
    """The host that has the address, or whose container has it; None for an address outside the lab."""
    container: str | None = None
    """The container's name; None if it is not a container's address."""

    @property
    def name(self) -> str:
        """`a0/web` for a container, `a0` for a host, else the address."""
        return "/".join(part for part in (self.host, self.container) if part) or self.address

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.host else self.address


def find_source(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> Location:
    """Find the container that sends.

    Args:
        word: `host/name`, a container name that exists once, or an address on the lab's network.
        outputs: The stack's outputs.
        hosts: The facts by host.

    Raises:
        ValueError: It is not a container of the lab; the message lists those that are.
        NoNetworkError: The container cannot send.
    """
    found = _find_container(word, outputs, hosts)
    if found is None:
        raise ValueError(
            f"{word}: is no container on the lab's hosts; on {outputs.network} are "
            f"{_known(hosts) or 'none'}{_silent(hosts)}"
        )
    return found


def find_target(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> Location:
    """Find the container, host or address that the packet is sent to.

    Args:
        word: As for `find_source`, or a host, or an IPv4 address.
        outputs: The stack's outputs.
        hosts: The facts by host.

    Raises:
        ValueError: It is none of these.
        NoNetworkError: The container has no address.
    """
    try:
        if found := _find_container(word, outputs, hosts):
            return found
    except HostNetworkError as error:
        return Location(outputs.hosts[error.host], error.host)
    for host, address in outputs.hosts.items():
        if word in (host, address):
            return Location(address, host)
    try:
        return Location(str(IPv4Address(word)))
    except ValueError:
        raise ValueError(
            f"{word}: is neither an IPv4 address, nor a host ({', '.join(outputs.hosts)}), nor a container; "
            f"on {outputs.network} are {_known(hosts) or 'none'}{_silent(hosts)}"
        ) from None


def _find_container(word: str, outputs: Outputs, hosts: Mapping[str, HostFacts]) -> Location | None:
    on_host, slash, name = word.rpartition("/")
    if slash and on_host not in outputs.hosts:
        raise ValueError(f"{word}: {on_host} is not a host of the lab; they are {', '.join(outputs.hosts)}")
    matches = [
        (host, container)
        for host, container in _containers(hosts)
        if word == container.address
        or (name in (container.name, container.name.removeprefix(_PREFIX)) and on_host in ("", host))
    ]
    if len(matches) > 1:
        names = ", ".join(f"{host}/{container.name}" for host, container in matches)
        raise ValueError(f"{word}: may be any of {names}")
    if not matches:
        return None
    [(host, container)] = matches
    if container.host_network:
        raise HostNetworkError(
            host, container.name, f"lab why {host} HOST PROTO/PORT, or trace from a container on the network"
        )
    if container.state == "paused":
        raise NoNetworkError(
            Finding(f"{host}/{container.name}", "is paused, and neither sends nor answers",
                    f"{outputs.ssh[host]} docker unpause {container.name}")
        )  # fmt: skip
    if container.state != "running":
        raise NoNetworkError(
            Finding(f"{host}/{container.name}", f"is {container.state}, and has no network without a process",
                    f"{outputs.ssh[host]} docker start {container.name}")
        )  # fmt: skip
    if container.address is None:
        raise NoNetworkError(
            Finding(f"{host}/{container.name}", f"is not on {outputs.network}: Calico gave it no interface",
                    f"{outputs.ssh[host]} docker network connect {outputs.network} {container.name}")
        )  # fmt: skip
    return Location(container.address, host, container.name)


def _containers(hosts: Mapping[str, HostFacts]) -> Iterator[tuple[str, Container]]:
    for host, facts in hosts.items():
        for container in facts.containers:
            yield host, container


def _known(hosts: Mapping[str, HostFacts]) -> str:
    return ", ".join(f"{host}/{one.name}" for host, one in _containers(hosts) if one.address)


def _silent(hosts: Mapping[str, HostFacts]) -> str:
    silent = [host for host, facts in hosts.items() if not facts.complete]
    return f" (no answer from {', '.join(silent)})" if silent else ""
