"""The config of a lab as one typed model, and what other parts derive from it. Pure.

A section validates itself, in the `config.py` of its component. `config.validation` checks what concerns two
sections. `config.loading` reads a file and reports all problems.
"""

from typing import Any

from pydantic import Field

from components.backup.config import BackupConfig
from components.backup.rendering import required_flows as backup_flows
from components.calico.config import CalicoConfig
from components.calico.flows import required_flows as calico_flows
from components.calico.isolation import Isolation
from components.calico.policy_rendering import Names
from components.etcd.config import EtcdConfig
from components.etcd.rendering import required_flows as etcd_flows
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.guard import RequiredFlow, required_flows
from components.firewall.rules.lab_hosts import LabHosts
from components.hosts.config import HostsConfig
from components.notebooks.config import NOTEBOOK_PORT, Notebook, NotebookConfig, NotebooksConfig, notebooks
from components.services.config import ProxyConfig, ServiceConfig, SshBoxConfig
from components.shared.section import HostName, Section

NAMESPACE = "calico-lab"
"""Prefix of every section in `Pulumi.<stack>.yaml`: `calico-lab:hosts`."""


class LabConfig(Section):
    """The sections of `Pulumi.<stack>.yaml`."""

    hosts: HostsConfig = Field(description="The hosts.")
    etcd: EtcdConfig = Field(description="The etcd cluster.")
    network: CalicoConfig = Field(description="The network that the containers of all hosts share.")
    notebook: NotebookConfig = Field(description="The Jupyter notebook on that network.")
    notebooks: NotebooksConfig = Field(
        default_factory=lambda: NotebooksConfig.model_validate({}), description="The notebooks of a class."
    )
    ssh_box: SshBoxConfig = Field(description="The SSH server on that network.")
    ssh_boxes: dict[HostName, SshBoxConfig] = Field(
        default_factory=dict,
        description="More SSH servers, by name. Network policies and ssh(1) call them sshbox-NAME.",
    )
    proxy: ProxyConfig = Field(description="The HTTP proxy in front of the notebook.")
    firewall: FirewallConfig = Field(
        default_factory=lambda: FirewallConfig.model_validate({}), description="The firewall policies."
    )
    backup: BackupConfig | None = Field(
        None, description="Backups of the notebooks' work on other hosts; without it there are none."
    )


def flows(config: LabConfig, lab: LabHosts) -> list[RequiredFlow]:
    """Returns the flows that the lab needs. No firewall policy may cut one."""
    hosts = tuple(config.hosts.members)
    between = [*etcd_flows(config.etcd, config.network.hosts or hosts), *calico_flows(config.network, hosts)]
    if config.backup:
        between += backup_flows(config.backup, backed_up(config))
    return required_flows(lab, between, proxies=dict.fromkeys(config.proxy.hosts, config.proxy.port))


def names(config: LabConfig, lab: LabHosts) -> Names:
    """Returns the names that network policies can use, with their addresses."""
    others = {name: [host.address] for name, host in lab.others.items()}
    operator = [str(address) for address in lab.operator if address.version == 4]
    return Names(
        services=(
            *map(service_name, containers(config)),
            *(notebook.service for notebook in members(config)),
        ),
        hosts=tuple(config.hosts.members),
        proxies=config.proxy.hosts,
        others={**others, "operator": operator},
    )


def containers(config: LabConfig) -> dict[str, NotebookConfig | SshBoxConfig]:
    """Returns the sections of the services that have an address on the network, by their keys in the file."""
    more = {f"sshBoxes.{name}": box for name, box in config.ssh_boxes.items()}
    return {"notebook": config.notebook, "sshBox": config.ssh_box, **more}


def service_name(key: str) -> str:
    """Returns the name of a service in network policies, by its key in the file.

    In lower case it is the name of its resource and of its container.
    """
    section, _, name = key.partition(".")
    return f"sshbox-{name}" if section == "sshBoxes" else section


def ssh_boxes(config: LabConfig) -> dict[str, SshBoxConfig]:
    """Returns the SSH boxes by their names in network policies, the original's first."""
    return {
        service_name(key): box for key, box in containers(config).items() if isinstance(box, SshBoxConfig)
    }


def all_notebooks(config: LabConfig) -> dict[str, Notebook]:
    """Returns the notebooks by name, the original lab's first."""
    return notebooks(config.notebook, config.notebooks)


def members(config: LabConfig) -> list[Notebook]:
    """Returns the notebooks of the class."""
    return list(all_notebooks(config).values())[1:]


def seen_from_inside(config: LabConfig) -> dict[str, Any]:
    """Returns what the first notebook shows of the lab: hosts, services with a fixed address, block size."""
    boxes = {service_name(key).lower(): service for key, service in containers(config).items()}
    return {
        "hosts": {name: str(member.address) for name, member in config.hosts.members.items()},
        "containers": {name: str(box.address) for name, box in boxes.items() if box.address},
        "blockSize": config.network.block_size,
    }


def isolation(config: LabConfig) -> Isolation | None:
    """Returns the isolation of students; None where there are none, or where they are not isolated."""
    if config.notebooks.isolation == "none" or not any(member.student for member in members(config)):
        return None
    return Isolation(proxies=config.proxy.hosts, port=NOTEBOOK_PORT)


def proxies(config: LabConfig) -> dict[str, str]:
    """Returns the host of each HTTP proxy, by the name of its resource and of its container."""
    return dict(zip(("proxy", "proxy-second"), config.proxy.hosts, strict=False))


def services(config: LabConfig) -> dict[str, ServiceConfig]:
    """Returns the sections of all services, by their keys in the file."""
    return {**containers(config), "proxy": config.proxy}


def backed_up(config: LabConfig) -> tuple[str, ...]:
    """Returns the hosts that may run notebooks, and the backup hosts."""
    hosts = (*(config.network.hosts or config.hosts.members), *(config.backup.hosts if config.backup else ()))
    return tuple(dict.fromkeys(hosts))


def components(config: LabConfig) -> dict[str, list[str]]:
    """The components that each host has, as `Host.install` calls them."""
    on_network = config.network.hosts or tuple(config.hosts.members)
    named = {
        "etcd": config.etcd.members,
        "etcd-snapshots": [host for host in config.etcd.snapshot_hosts if host not in config.etcd.members],
        "calico-programs": on_network,
        "calico": on_network,
        "backup": backed_up(config) if config.backup else (),
        **{name.lower(): [box.host] for name, box in ssh_boxes(config).items()},
        **{name: [host] for name, host in proxies(config).items()},
    }
    return {host: [name for name, hosts in named.items() if host in hosts] for host in config.hosts.members}


def reserved(config: LabConfig) -> list[str]:
    """Returns the fixed addresses of the lab's services on the network."""
    boxes = [str(service.address) for service in containers(config).values() if service.address is not None]
    return [*boxes, *(notebook.address for notebook in members(config) if notebook.address)]
