"""Validation of what concerns two sections of the config, or a section and the controller.

Each check yields one line for each problem: `<path>: <value>: <problem>; <what is accepted>`.
"""

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from components.calico.policy_guard import Connection, guard_connection
from components.calico.policy_rendering import HOST_LABEL, SERVICE_LABEL, render_policies
from components.firewall.rules.guard import guard_policies
from components.firewall.rules.lab_hosts import lab_hosts
from components.hosts.config import DockerHosts
from components.notebooks.config import NOTEBOOK_PORT
from components.shared.policy_values import PolicyError
from components.shared.section import listed
from config.model import LabConfig, containers, flows, members, names, reserved, service_name, services
from config.ports import collisions


def problems_of(config: LabConfig) -> list[str]:
    """Returns the problems of a config whose sections are each valid; none where it can be applied."""
    # The policies are checked last, because they need valid hosts and addresses.
    return list(_across_sections(config)) or [
        *_firewall_policies_keep_flows(config),
        *_network_policies_keep_proxy(config),
    ]


def total_memory(meminfo: str) -> int:
    """Returns the memory of a computer in MiB, from the text of `/proc/meminfo` (proc_meminfo(5))."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines())
    return int(fields["MemTotal"].split()[0]) // 1024


def _across_sections(config: LabConfig) -> Iterator[str]:
    yield from _hosts_exist(config)
    yield from _boxes_are_not_named_like_hosts(config)
    yield from _services_are_on_the_network(config)
    yield from _networks_do_not_overlap(config)
    yield from _pool_is_large_enough(config)
    yield from _addresses_are_unique(config)
    yield from _hosts_are_large_enough(config)
    if all(host in config.hosts.members for host in config.proxy.hosts):
        yield from collisions(config)
    yield from _published_policies_take_effect(config)
    yield from _backup_server_is_packaged(config)


def _hosts_exist(config: LabConfig) -> Iterator[str]:
    known = list(config.hosts.members)
    named = [(f"etcd.members[{index}]", host) for index, host in enumerate(config.etcd.members)]
    named += [
        (f"etcd.snapshots.hosts[{index}]", host)
        for index, host in enumerate(config.etcd.snapshots.hosts or ())
    ]
    if config.etcd.restore_host:
        named.append(("etcd.restoreFrom", config.etcd.restore_host))
    named += [(f"network.hosts[{index}]", host) for index, host in enumerate(config.network.hosts or ())]
    named += [
        (f"network.routeReflectors[{index}]", host)
        for index, host in enumerate(config.network.route_reflectors)
    ]
    named += _hosts_of_services(config)
    if config.backup:
        named += [(f"backup.hosts[{index}]", host) for index, host in enumerate(config.backup.hosts)]
    for path, host in named:
        if host not in known:
            yield f"{path}: {host!r}: must be one of hosts.members ({listed(known)})"


def _hosts_of_services(config: LabConfig) -> list[tuple[str, str]]:
    named = [(f"{section}.host", service.host) for section, service in services(config).items()]
    named += [("proxy.secondHost", config.proxy.second_host)] if config.proxy.second_host else []
    named += [(f"{member.section}.host", member.host) for member in members(config) if member.host]
    return [
        *named,
        *((f"notebooks.hosts[{index}]", host) for index, host in enumerate(config.notebooks.hosts or ())),
    ]


def _boxes_are_not_named_like_hosts(config: LabConfig) -> Iterator[str]:
    for name in config.ssh_boxes:
        alias = service_name(f"sshBoxes.{name}")
        if alias in config.hosts.members:
            yield f"sshBoxes.{name}: is called {alias}, as a host is; must be another name"


def _services_are_on_the_network(config: LabConfig) -> Iterator[str]:
    hosts = config.network.hosts or tuple(config.hosts.members)
    # The proxy's host too, because a host that is not on the network has no route to its containers.
    named = dict(_hosts_of_services(config))
    for index, host in enumerate(config.network.route_reflectors):
        named[f"network.routeReflectors[{index}]"] = host
    for path, host in named.items():
        if host in config.hosts.members and host not in hosts:
            yield f"{path}: {host!r}: must be one of network.hosts ({listed(hosts)})"


def _networks_do_not_overlap(config: LabConfig) -> Iterator[str]:
    pool = config.network.cidr
    if isinstance(config.hosts, DockerHosts) and pool.overlaps(config.hosts.network):
        yield (
            f"network.cidr: {pool}: overlaps hosts.network {config.hosts.network}; "
            "must be a private network of the containers' own"
        )
        return
    for name, member in config.hosts.members.items():
        if member.address in pool:
            yield (
                f"network.cidr: {pool}: holds hosts.members.{name}.address {member.address}; "
                "must be a private network of the containers' own"
            )


def _pool_is_large_enough(config: LabConfig) -> Iterator[str]:
    network = config.network
    hosts = len(network.hosts or config.hosts.members)
    if network.blocks < hosts:
        smallest = network.cidr.prefixlen + (hosts - 1).bit_length()
        smaller = f", or network.blockSize from {smallest} to 32" if smallest <= 32 else ""
        yield (
            f"network.cidr: {network.cidr}: has {network.blocks} block(s) of /{network.block_size}, and each "
            f"of {hosts} hosts takes one; must be a larger private network{smaller}"
        )
        return
    wanted = len(reserved(config)) + network.tunnels * hosts
    if network.cidr.num_addresses < wanted:
        yield (
            f"network.cidr: {network.cidr}: has {network.cidr.num_addresses} address(es), and services and "
            f"ends of tunnels take {wanted}; must be a larger private network"
        )


def _addresses_are_unique(config: LabConfig) -> Iterator[str]:
    taken: dict[IPv4Address, str] = {}
    named = {f"{section}.address": service.address for section, service in containers(config).items()}
    named |= {
        f"{member.section}.address": IPv4Address(member.address)
        for member in members(config)
        if member.address
    }
    for path, address in named.items():
        if address is None:
            continue
        if address not in config.network.cidr:
            yield f"{path}: {address}: must be an address of network.cidr {config.network.cidr}"
        if address in taken:
            yield f"{path}: {address}: is taken already by {taken[address]}; must be an address of its own"
        taken[address] = path


def _hosts_are_large_enough(config: LabConfig) -> Iterator[str]:
    """Compares the services' limits with the controller, because host containers have all its resources.

    `lab doctor` does the same for hosts with `provider: existing`.
    """
    if not isinstance(config.hosts, DockerHosts):
        return
    cpus, memory = os.cpu_count() or 1, total_memory(Path("/proc/meminfo").read_text())
    limits = [(section, one.host, one.cpus, one.memory) for section, one in services(config).items()]
    limits += [(one.section, one.host or "a host", one.cpus, one.memory) for one in members(config)]
    for section, host, wanted_cpus, wanted_memory in limits:
        if wanted_cpus > cpus:
            yield f"{section}.cpus: {wanted_cpus}: must be at most {cpus}, as {host} has no more"
        if wanted_memory > memory:
            yield f"{section}.memory: {wanted_memory}: must be at most {memory}, as {host} has no more"


def _published_policies_take_effect(config: LabConfig) -> Iterator[str]:
    if config.network.dataplane != "ebpf":
        return
    for name, policy in config.firewall.policies.items():
        if policy.enabled and policy.applies_to != "host":
            # Felix puts its rules first in FORWARD, before the jump to DOCKER-USER.
            yield (
                f"firewall.policies.{name}.appliesTo: {policy.applies_to!r} does not hold with "
                "network.dataplane: ebpf, because Felix accepts packets from and to containers before the "
                "firewall's rules for published ports; write host, say who may reach a container in "
                "network.policies, or take network.dataplane: iptables"
            )


def _backup_server_is_packaged(config: LabConfig) -> Iterator[str]:
    # An existing host without the package is refused when it is installed, because it may have the program.
    if config.backup and isinstance(config.hosts, DockerHosts) and config.hosts.release == "bookworm":
        yield (
            "hosts.release: 'bookworm': has no package of restic-rest-server, which "
            "backup.hosts need; must be trixie, or the section backup left out"
        )


def _firewall_policies_keep_flows(config: LabConfig) -> Iterator[str]:
    lab = lab_hosts(config.hosts, config.firewall)
    try:
        guard_policies(config.firewall, lab, flows(config, lab))
    except PolicyError as error:
        yield from error.problems


def _network_policies_keep_proxy(config: LabConfig) -> Iterator[str]:
    network, lab = config.network, lab_hosts(config.hosts, config.firewall)
    named = names(config, lab)
    try:
        render_policies(network.policies, named)
    except PolicyError as error:
        yield from error.problems
        return
    notebook = config.notebook
    # With a tunnel a proxy's host sends from its tunnel address, which is in the pool.
    tunnelled = [network.cidr] if network.encapsulation != "none" or network.wireguard else []
    # Felix always accepts packets from a host to its own containers.
    for proxy in (host for host in config.proxy.hosts if host != notebook.host):
        own = [IPv4Network(lab.hosts[proxy].address)] if network.encapsulation != "vxlan" else []
        connection = Connection(
            labels={
                SERVICE_LABEL: "notebook",
                "org.projectcalico.pool": network.name,
                "projectcalico.org/namespace": "libnetwork",
                "projectcalico.org/orchestrator": "libnetwork",
            },
            source_labels={HOST_LABEL: proxy},
            source=[*own, *tunnelled],
            destination=IPv4Network(notebook.address),
            protocol="tcp",
            port=NOTEBOOK_PORT,
        )
        purpose = f"the proxy on {proxy} from the notebook, tcp/{NOTEBOOK_PORT}"
        yield from guard_connection(network.policies, named, connection, purpose)
