"""The ports on which the lab's programs listen on a host, and the check that no two have the same. Pure.

Two programs may not share a port number, also at different addresses, because firewall rules match ports
and not addresses.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from components.calico.flows import BGP_PORT, DRIVER_PORT, FELIX_PORT, VXLAN_PORT, WIREGUARD_PORT
from components.etcd.rendering import METRICS_PORT
from components.hosts.config import ExistingHosts
from components.shared.section import listed
from config.model import LabConfig

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - only compared
SSH, SSH_PORT = "SSH", 22


class Listener(NamedTuple):
    """A port on which a program of the lab listens on a host."""

    owner: str
    """The program, for messages."""
    port: int
    addresses: tuple[str, ...]
    """The addresses at which it listens."""
    key: str = ""
    """The path of the port in the config; empty for a fixed port."""
    protocol: Literal["tcp", "udp"] = "tcp"


def listeners(config: LabConfig, host: str) -> list[Listener]:
    """Returns the ports of a host."""
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
    if config.backup and host in config.backup.hosts:
        table.append(Listener("the backup server", config.backup.port, (own,), "backup.port"))
    if host in proxy.hosts:
        table.append(Listener("the HTTP proxy", proxy.port, (own,), "proxy.port"))
        table.append(Listener("the HTTP proxy's API", proxy.api_port, loopback, "proxy.apiPort"))
        if proxy.https != "none":
            table.append(Listener("the HTTP proxy's redirect", proxy.http_port, (own,), "proxy.httpPort"))
        if proxy.metrics_port:
            table.append(
                Listener("the HTTP proxy's metrics", proxy.metrics_port, loopback, "proxy.metricsPort")
            )
    return table


def collisions(config: LabConfig) -> Iterator[str]:
    """Yields a problem for each port in the config that another program of the lab has."""
    reported: set[str] = set()
    for host in config.hosts.members:
        # Fixed ports first, because only a port in the config can be changed.
        table = sorted(listeners(config, host), key=lambda listener: bool(listener.key))
        first: dict[tuple[str, int], Listener] = {}
        for listener in table:
            owner = first.setdefault((listener.protocol, listener.port), listener)
            if owner is listener or listener.key in reported:
                continue
            reported.add(listener.key)
            where = f"{owner.key} on {host}" if owner.key else f"on {host}"
            taken = sorted({other.port for other in table if other.protocol == listener.protocol})
            yield (
                f"{listener.key}: {listener.port}: is the port of {owner.owner} ({where}); must be another "
                f"than {listed(taken)}"
            )
