"""The whole config of the lab as one typed model, read once, before the first resource.

Owes: whatever is wrong in the file is reported at once and all together, each with its path in the file, the
value, and what would be accepted. A section knows what is right within itself; what concerns two sections is
checked here.
"""

import json
import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pulumi import RunError
from pydantic import Field, ValidationError

from components.calico.config import CalicoConfig
from components.calico.flows import needs as calico_needs
from components.calico.policies import (
    HOST_LABEL,
    SERVICE_LABEL,
    Connection,
    Names,
    NetworkPolicyError,
    cut_off,
    render_policies,
)
from components.etcd.config import EtcdConfig
from components.etcd.rendering import needs as etcd_needs
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.guard import Flow, guarded, lab_flows
from components.firewall.rules.lab import Lab, lab_of
from components.firewall.rules.resolve import PolicyError
from components.hosts.config import DockerHosts, HostsConfig
from components.hosts.container import total_memory
from components.services.config import NOTEBOOK_PORT, NotebookConfig, ProxyConfig, ServiceConfig, SshBoxConfig
from components.shared.section import Section, listed
from config.messages import MESSAGE, sentences, shortened
from config.ports import collisions
from config.positions import line_of

NAMESPACE = "calico-lab"


class LabConfig(Section):
    """The sections of `Pulumi.<stack>.yaml`."""

    hosts: HostsConfig = Field(description="The machines.")
    etcd: EtcdConfig = Field(description="The etcd cluster.")
    network: CalicoConfig = Field(description="The network that containers on every machine share.")
    notebook: NotebookConfig = Field(description="The Jupyter notebook on that network.")
    ssh_box: SshBoxConfig = Field(description="The SSH server on that network.")
    proxy: ProxyConfig = Field(description="The HTTP proxy in front of the notebook.")
    firewall: FirewallConfig = Field(
        default_factory=lambda: FirewallConfig.model_validate({}), description="The firewall policies."
    )


class ConfigError(RunError):
    """The config file is wrong; Pulumi prints the message, a line for every problem, and no traceback."""

    def __init__(self, file: str, problems: list[str]) -> None:
        super().__init__(
            "\n".join([f"{file} has {len(problems)} problem(s):", *(f"  {p}" for p in problems)])
        )


def load(values: Mapping[str, Any], file: str) -> LabConfig:
    """Read the lab's config.

    Args:
        values: The program's config as the engine gives it: `<namespace>:<section>` to JSON text.
        file: The name of the file, for messages.

    Raises:
        ConfigError: With every problem of the file.
    """
    prefix = f"{NAMESPACE}:"
    document = {
        key.removeprefix(prefix): _parse(value) for key, value in values.items() if key.startswith(prefix)
    }
    try:
        config = LabConfig.model_validate(document)
    except ValidationError as error:
        problems = sentences(error, LabConfig)
    else:
        # A policy can be judged only once the machines and addresses that it names are right.
        problems = list(_across_sections(config)) or [
            *_policies_are_safe(config),
            *_network_policies_are_safe(config),
        ]
        if not problems:
            return config
    raise ConfigError(file, [_with_line(problem, file, document) for problem in problems])


def flows(config: LabConfig, lab: Lab) -> list[Flow]:
    """The flows that the lab needs, which no firewall policy may cut."""
    hosts = tuple(config.hosts.members)
    needs = [*etcd_needs(config.etcd, config.network.hosts or hosts), *calico_needs(config.network, hosts)]
    return lab_flows(lab, needs, proxy=(config.proxy.host, config.proxy.port))


def names(config: LabConfig, lab: Lab) -> Names:
    """What names in network policies stand for."""
    others = {name: [machine.address] for name, machine in lab.others.items()}
    operator = [str(address) for address in lab.operator if address.version == 4]
    return Names(
        services=("notebook", "sshBox"),
        hosts=tuple(config.hosts.members),
        proxy=config.proxy.host,
        others={**others, "operator": operator},
    )


def services(config: LabConfig) -> dict[str, ServiceConfig]:
    """The sections of the services, by their keys in the file."""
    return {"notebook": config.notebook, "sshBox": config.ssh_box, "proxy": config.proxy}


def components(config: LabConfig) -> dict[str, list[str]]:
    """The components that each host has, as `Host.install` calls them."""
    on_network = config.network.hosts or tuple(config.hosts.members)
    named = {
        "etcd": config.etcd.members,
        "calico-programs": on_network,
        "calico": on_network,
        "notebook": [config.notebook.host],
        "sshbox": [config.ssh_box.host],
        "proxy": [config.proxy.host],
    }
    return {host: [name for name, hosts in named.items() if host in hosts] for host in config.hosts.members}


def reserved(config: LabConfig) -> list[str]:
    """The addresses of the network that the lab's services have."""
    fixed = (config.notebook.address, config.ssh_box.address)
    return [str(address) for address in fixed if address is not None]


def _with_line(problem: str, file: str, document: Mapping[str, Any]) -> str:
    line = line_of(Path(file), NAMESPACE, document, problem.partition(": ")[0])
    short = shortened(problem, MESSAGE)
    return f"line {line}: {short}" if line else short


def _parse(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _across_sections(config: LabConfig) -> Iterator[str]:
    yield from _hosts_are_known(config)
    yield from _services_are_on_the_network(config)
    yield from _networks_are_apart(config)
    yield from _pool_is_large_enough(config)
    yield from _addresses_are_free(config)
    yield from _hosts_are_large_enough(config)
    if config.proxy.host in config.hosts.members:
        yield from collisions(config)
    yield from _published_policies_hold(config)


def _hosts_are_known(config: LabConfig) -> Iterator[str]:
    known = list(config.hosts.members)
    named = [(f"etcd.members[{index}]", host) for index, host in enumerate(config.etcd.members)]
    named += [(f"network.hosts[{index}]", host) for index, host in enumerate(config.network.hosts or ())]
    named += [
        (f"network.routeReflectors[{index}]", host)
        for index, host in enumerate(config.network.route_reflectors)
    ]
    named += [("notebook.host", config.notebook.host), ("sshBox.host", config.ssh_box.host)]
    named += [("proxy.host", config.proxy.host)]
    for path, host in named:
        if host not in known:
            yield f"{path}: {host!r}: must be one of hosts.members ({listed(known)})"


def _services_are_on_the_network(config: LabConfig) -> Iterator[str]:
    hosts = config.network.hosts or tuple(config.hosts.members)
    named = {
        "notebook.host": config.notebook.host,
        "sshBox.host": config.ssh_box.host,
        # A host that is not on the network has no route to its containers.
        "proxy.host": config.proxy.host,
    }
    for index, host in enumerate(config.network.route_reflectors):
        named[f"network.routeReflectors[{index}]"] = host
    for path, host in named.items():
        if host in config.hosts.members and host not in hosts:
            yield f"{path}: {host!r}: must be one of network.hosts ({listed(hosts)})"


def _networks_are_apart(config: LabConfig) -> Iterator[str]:
    containers = config.network.cidr
    if isinstance(config.hosts, DockerHosts) and containers.overlaps(config.hosts.network):
        yield (
            f"network.cidr: {containers}: overlaps hosts.network {config.hosts.network}; "
            "must be a private network of the containers' own"
        )
        return
    for name, member in config.hosts.members.items():
        if member.address in containers:
            yield (
                f"network.cidr: {containers}: holds hosts.members.{name}.address {member.address}; "
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


def _addresses_are_free(config: LabConfig) -> Iterator[str]:
    taken: dict[IPv4Address, str] = {}
    wanted = {"notebook.address": config.notebook.address, "sshBox.address": config.ssh_box.address}
    for path, address in wanted.items():
        if address is None:
            continue
        if address not in config.network.cidr:
            yield f"{path}: {address}: must be an address of network.cidr {config.network.cidr}"
        if address in taken:
            yield f"{path}: {address}: is taken already by {taken[address]}; must be an address of its own"
        taken[address] = path


def _hosts_are_large_enough(config: LabConfig) -> Iterator[str]:
    """Compare limits with what host containers have, which is all of the controller's.

    What other hosts have is asked by `lab doctor`.
    """
    if not isinstance(config.hosts, DockerHosts):
        return
    cpus, memory = os.cpu_count() or 1, total_memory(Path("/proc/meminfo").read_text())
    for section, service in services(config).items():
        if service.cpus > cpus:
            yield f"{section}.cpus: {service.cpus}: must be at most {cpus}, as {service.host} has no more"
        if service.memory > memory:
            yield (
                f"{section}.memory: {service.memory}: must be at most {memory}, as {service.host} has no more"
            )


def _published_policies_hold(config: LabConfig) -> Iterator[str]:
    if config.network.dataplane != "ebpf":
        return
    for name, policy in config.firewall.policies.items():
        if policy.enabled and policy.applies_to != "host":
            # Felix puts these rules first in FORWARD, and Docker's chain comes after them.
            yield (
                f"firewall.policies.{name}.appliesTo: {policy.applies_to!r} does not hold with "
                "network.dataplane: ebpf, because Felix accepts packets from and to containers before the "
                "firewall's rules for published ports; write host, say who may reach a container in "
                "network.policies, or take network.dataplane: iptables"
            )


def _policies_are_safe(config: LabConfig) -> Iterator[str]:
    lab = lab_of(config.hosts, config.firewall)
    try:
        guarded(config.firewall, lab, flows(config, lab))
    except PolicyError as error:
        yield from error.problems


def _network_policies_are_safe(config: LabConfig) -> Iterator[str]:
    network, lab = config.network, lab_of(config.hosts, config.firewall)
    named = names(config, lab)
    try:
        render_policies(network.policies, named)
    except NetworkPolicyError as error:
        yield from error.problems
        return
    proxy, notebook = config.proxy.host, config.notebook
    if proxy == notebook.host:
        # Felix lets a host reach its own containers whatever policies say.
        return
    # As the end of a tunnel the proxy's host has an address of the pool.
    tunnelled = [network.cidr] if network.encapsulation != "none" or network.wireguard else []
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
    yield from cut_off(network.policies, named, connection, purpose)
