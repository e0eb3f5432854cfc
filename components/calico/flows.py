"""The flows between hosts that Calico needs, which no firewall policy may block. Pure."""

from collections.abc import Iterator, Sequence
from itertools import permutations

from components.calico.config import CalicoConfig
from components.shared.flows import HostFlow

BGP_PORT = 179
VXLAN_PORT = 4789
WIREGUARD_PORT = 51820
FELIX_PORT = 9099
"""Felix' health endpoint on its own host."""
DRIVER_PORT = 9101
"""The Docker driver's health endpoint (docker-driver/cmd/calico-docker-driver)."""


def peers_of(host: str, members: Sequence[str], reflectors: Sequence[str]) -> list[str]:
    """The hosts with which a host has BGP sessions; with route reflectors, only those with them."""
    return [
        peer
        for peer in members
        if peer != host and (not reflectors or host in reflectors or peer in reflectors)
    ]


def required_flows(config: CalicoConfig, hosts: Sequence[str]) -> Iterator[HostFlow]:
    """The flows between hosts that Calico needs.

    Args:
        config: The section `network`.
        hosts: The lab's hosts; the config may name some of them.
    """
    members = config.hosts or hosts
    for host in members:
        for peer in peers_of(host, members, config.route_reflectors):
            yield HostFlow("BGP", host, peer, "tcp", BGP_PORT)
    tunnels = {"VXLAN": VXLAN_PORT} if config.encapsulation != "none" else {}
    if config.wireguard:
        tunnels["WireGuard"] = WIREGUARD_PORT
    for purpose, port in tunnels.items():
        for origin, host in permutations(members, 2):
            yield HostFlow(purpose, origin, host, "udp", port)
