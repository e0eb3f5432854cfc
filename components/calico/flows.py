"""What Calico's hosts need of each other, which no firewall may cut. Pure."""

from collections.abc import Iterator, Sequence
from itertools import permutations

from components.calico.config import CalicoConfig
from components.firewall.rules.guard import Need

BGP_PORT = 179
VXLAN_PORT = 4789
WIREGUARD_PORT = 51820
FELIX_PORT = 9099
"""Where Felix says on its own host how it is."""
DRIVER_PORT = 9101
"""Where the Docker driver does (docker-driver/cmd/calico-docker-driver)."""


def peers_of(host: str, members: Sequence[str], reflectors: Sequence[str]) -> list[str]:
    """The members with which a host has BGP sessions: where there are reflectors, only with those."""
    return [
        peer
        for peer in members
        if peer != host and (not reflectors or host in reflectors or peer in reflectors)
    ]


def needs(config: CalicoConfig, hosts: Sequence[str]) -> Iterator[Need]:
    """The connections between hosts that the network lives by.

    Args:
        config: Its section.
        hosts: The lab's hosts, of which the config may choose.
    """
    members = config.hosts or hosts
    for host in members:
        for peer in peers_of(host, members, config.route_reflectors):
            yield Need("BGP", host, peer, "tcp", BGP_PORT)
    tunnels = {"VXLAN": VXLAN_PORT} if config.encapsulation != "none" else {}
    if config.wireguard:
        tunnels["WireGuard"] = WIREGUARD_PORT
    for purpose, port in tunnels.items():
        for origin, host in permutations(members, 2):
            yield Need(purpose, origin, host, "udp", port)
