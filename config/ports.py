"""The ports of the lab's own programs on its hosts, and which of them the config gives to two programs.

A port number is given once on a host, whatever address its program listens at: firewall rules name ports and
not the programs behind them, so a rule about one would be about the other, too. Pure.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from components.calico.flows import BGP_PORT, DRIVER_PORT, FELIX_PORT, VXLAN_PORT, WIREGUARD_PORT
from components.etcd.rendering import METRICS_PORT
from components.hosts.config import ExistingHosts
from components.shared.section import listed

if TYPE_CHECKING:
    from config.model import LabConfig

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, not listened at
SSH, SSH_PORT = "SSH", 22


class Listener(NamedTuple):
    """A program of the lab that has a port on a host."""

    owner: str
    port: int
    addresses: tuple[str, ...]
    """Where it listens."""
    key: str = ""
    """Where the port stands in the config; empty for one that is fixed."""
    protocol: Literal["tcp", "udp"] = "tcp"


def listeners(config: "LabConfig", host: str) -> list[Listener]:
    """The table: what the lab listens for on a host, what cannot be changed first."""
    own = str(config.hosts.members[host].address)
    every, loopback = (EVERY_ADDRESS,), (LOOPBACK,)
    etcd, network, proxy = config.etcd, config.network, config.proxy
    table: list[Listener] = []
    if isinstance(config.hosts, ExistingHosts):
        table.append(Listener(SSH, config.hosts.members[host].port, every, f"hosts.members.{host}.port"))
    else:
        table.append(Listener(SSH, SSH_PORT, every))
    if host in (network.hosts or config.hosts.members):
        table.append(Listener("BGP", BGP_PORT, every))
        table.append(Listener("Felix", FELIX_PORT, loopback))
        table.append(Listener("the Docker driver", DRIVER_PORT, loopback))
        if network.encapsulation != "none":
            table.append(Listener("VXLAN", VXLAN_PORT, every, protocol="udp"))
        if network.wireguard:
            table.append(Listener("WireGuard", WIREGUARD_PORT, every, protocol="udp"))
    if host in etcd.members:
        table.append(Listener("etcd's metrics", METRICS_PORT, loopback))
        table.append(Listener("etcd's clients", etcd.client_port, (own, LOOPBACK), "etcd.clientPort"))
        table.append(Listener("etcd's peers", etcd.peer_port, (own,), "etcd.peerPort"))
    if host == proxy.host:
        table.append(Listener("the HTTP proxy", proxy.port, (own,), "proxy.port"))
        table.append(Listener("the HTTP proxy's API", proxy.api_port, loopback, "proxy.apiPort"))
    return table


def collisions(config: "LabConfig") -> Iterator[str]:
    """Say which ports of the config another program of the lab has, once for each value in it."""
    told: set[str] = set()
    for host in config.hosts.members:
        # What is fixed has its port before what the config gives one to.
        table = sorted(listeners(config, host), key=lambda listener: bool(listener.key))
        first: dict[tuple[str, int], Listener] = {}
        for listener in table:
            owner = first.setdefault((listener.protocol, listener.port), listener)
            if owner is listener or listener.key in told:
                continue
            told.add(listener.key)
            where = f"{owner.key} on {host}" if owner.key else f"on {host}"
            others = sorted({other.port for other in table if other.protocol == listener.protocol})
            yield (
                f"{listener.key}: {listener.port}: is the port of {owner.owner} ({where}); must be another "
                f"than {listed(others)}"
            )
