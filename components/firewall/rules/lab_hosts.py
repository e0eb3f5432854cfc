"""The hosts that policies can name, and the operator's addresses."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.config import FirewallConfig, IpAddress
from components.hosts.config import DockerHosts, HostsConfig


@dataclass(frozen=True)
class HostAddress:
    """The addresses of a host on the lab's network."""

    address: str
    mac: str | None = None
    """None if it is not known."""
    ssh_port: int = 22


@dataclass(frozen=True)
class LabHosts:
    """The hosts by the names that policies use."""

    hosts: Mapping[str, HostAddress]
    """The hosts of the lab, which can have policies."""
    others: Mapping[str, HostAddress]
    """Hosts that rules can name but that have no policies: the visitor."""
    operator: tuple[IpAddress, ...]
    """The addresses from which the hosts see the operator."""

    def named(self, name: str) -> HostAddress | None:
        """The host with a name."""
        return self.hosts.get(name) or self.others.get(name)

    def with_address(self, address: IpAddress) -> HostAddress | None:
        """The host with an address."""
        hosts = (*self.hosts.values(), *self.others.values())
        return next((host for host in hosts if host.address == str(address)), None)

    def may_have_mac(self, address: IpAddress, mac: str) -> bool:
        """Whether packets from an address may have a source MAC address.

        They may not if the MAC address of that host is known to be another, or if the MAC address is known to
        be that of another host.
        """
        host = self.with_address(address)
        if host and host.mac:
            return host.mac == mac
        return mac not in [known.mac for known in (*self.hosts.values(), *self.others.values())]


def lab_hosts(hosts: HostsConfig, firewall: FirewallConfig) -> LabHosts:
    """Read the hosts and the operator's addresses from the config."""
    if isinstance(hosts, DockerHosts):
        members = {
            name: HostAddress(str(member.address), member.mac) for name, member in hosts.members.items()
        }
        visitor = hosts.visitor
        others = {"visitor": HostAddress(str(visitor.address), visitor.mac)} if visitor else {}
        gateway = hosts.network.network_address + 1
        return LabHosts(members, others, firewall.operator or (gateway,))
    members = {
        name: HostAddress(str(member.address), member.mac, member.port)
        for name, member in hosts.members.items()
    }
    own = dict.fromkeys(_source_address(host.address) for host in members.values())
    return LabHosts(members, {}, firewall.operator or tuple(address for address in own if address))


def _source_address(destination: str) -> IpAddress | None:
    """The controller's source address for a destination; None without a route.

    The kernel chooses it when a UDP socket is connected; no packet is sent (udp(7)).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((destination, 9))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])
