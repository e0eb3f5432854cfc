"""What policies can name: the machines of the lab, and where its operator comes from."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.config import FirewallConfig, IpAddress
from components.hosts.config import DockerHosts, HostsConfig


@dataclass(frozen=True)
class Machine:
    """What the firewall knows of a machine on the lab's network."""

    address: str
    mac: str | None = None
    ssh_port: int = 22


@dataclass(frozen=True)
class Lab:
    """What names in policies can stand for."""

    hosts: Mapping[str, Machine]
    """The hosts of the lab, on which policies can be."""
    others: Mapping[str, Machine]
    """Machines that rules can name but that have no policies, such as the visitor."""
    operator: tuple[IpAddress, ...]
    """The addresses from which the hosts see the operator."""

    def machine(self, name: str) -> Machine | None:
        """A machine of the lab by its name."""
        return self.hosts.get(name) or self.others.get(name)

    def at(self, address: IpAddress) -> Machine | None:
        """The machine of the lab that has an address."""
        machines = (*self.hosts.values(), *self.others.values())
        return next((machine for machine in machines if machine.address == str(address)), None)

    def may_have(self, address: IpAddress, mac: str) -> bool:
        """Whether packets from an address may carry a MAC address; no if it is known whose that is."""
        machine = self.at(address)
        if machine and machine.mac:
            return machine.mac == mac
        return mac not in [known.mac for known in (*self.hosts.values(), *self.others.values())]


def lab_of(hosts: HostsConfig, firewall: FirewallConfig) -> Lab:
    """Describe the lab that a config makes or takes."""
    if isinstance(hosts, DockerHosts):
        machines = {name: Machine(str(plan.address), plan.mac) for name, plan in hosts.members.items()}
        visitor = hosts.visitor
        others = {"visitor": Machine(str(visitor.address), visitor.mac)} if visitor else {}
        gateway = hosts.network.network_address + 1
        return Lab(machines, others, firewall.operator or (gateway,))
    machines = {name: Machine(str(plan.address), plan.mac, plan.port) for name, plan in hosts.members.items()}
    own = dict.fromkeys(_own_address(machine.address) for machine in machines.values())
    return Lab(machines, {}, firewall.operator or tuple(address for address in own if address))


def _own_address(destination: str) -> IpAddress | None:
    """The controller's address on the way to a machine: a look at its routes, nothing is sent (udp(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((destination, 9))
        except OSError:
            return None
        return ip_address(way.getsockname()[0])
