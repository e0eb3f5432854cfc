"""The lab, from the machines up: what there is, and how the parts are wired."""

from pathlib import Path

import pulumi
from pulumi import Output, RunError
from pulumi.runtime.config import CONFIG

from components.backup.component import Backup
from components.calico.clients import datastore_clients
from components.calico.component import CalicoNetwork
from components.etcd.component import EtcdCluster
from components.firewall.component import FirewallPolicy
from components.firewall.rules.lab_hosts import lab_hosts
from components.hosts.component import Hosts
from components.notebooks.component import Notebooks
from components.notebooks.config import ORIGINAL
from components.services.box_access import BoxAccess
from components.services.health import services_ready
from components.services.proxy import HttpProxy
from components.services.ssh_box import SshBox
from components.shared.secrets import CertificateAuthority
from config import model as sections
from config.loading import ConfigError, load

stack = pulumi.get_stack()
try:
    config = load(CONFIG.get(), f"Pulumi.{stack}.yaml")
except ConfigError as error:
    # Pulumi prints the message of a RunError without a traceback.
    raise RunError(str(error)) from None

hosts = Hosts("hosts", config.hosts, sections.components(config))
authority = CertificateAuthority("authority", f"calico-lab {stack}")

clients = datastore_clients(config.network, hosts.members)
etcd = EtcdCluster("etcd", config.etcd, hosts.members, authority, clients=clients)

lab = lab_hosts(config.hosts, config.firewall)
firewall = FirewallPolicy(
    "firewall",
    config.firewall,
    lab=lab,
    flows=sections.flows(config, lab),
    hosts=hosts.members,
)

network = CalicoNetwork(
    "network",
    config.network,
    hosts.members,
    etcd,
    authority=authority,
    dist=Path(".toolchain/dist"),
    reserved=sections.reserved(config),
    names=sections.names(config, lab),
    isolation=sections.isolation(config),
)

backup = None
if config.backup:
    kept = {name: hosts.members[name] for name in sections.backed_up(config)}
    backup = Backup("backup", config.backup, kept, authority)

notebooks = Notebooks(
    "notebooks",
    config.notebooks,
    sections.all_notebooks(config),
    {name: hosts.members[name] for name in network.networks},
    networks=network.networks,
    lab=sections.seen_from_inside(config),
    backup=backup,
    # They hold before a notebook starts.
    after=network.policies,
)

ssh_boxes = [
    SshBox(
        name.lower(),
        box,
        hosts.members[box.host],
        network=network.networks[box.host].docker_name,
        policy_name=name,
    )
    for name, box in sections.ssh_boxes(config).items()
]
box_access = BoxAccess("box-access", ssh_boxes)

proxies = [
    HttpProxy(name, config.proxy, hosts.members[host], notebooks=notebooks.routes, authority=authority)
    for name, host in sections.proxies(config).items()
]
proxy = proxies[0]

original = notebooks.containers[ORIGINAL]
services = [*(box.service for box in ssh_boxes), *(one.service for one in proxies)]
ready = services_ready("services-ready", services)

pulumi.export("hosts", hosts.addresses)
pulumi.export("ssh", hosts.ssh)
pulumi.export("etcdEndpoints", etcd.endpoints)
pulumi.export("network", network.output)
pulumi.export("notebookUrl", Output.all(ready.id, original.id).apply(lambda _: f"{proxy.url}/lab"))
pulumi.export("notebookToken", notebooks.tokens[ORIGINAL])
pulumi.export("notebooks", notebooks.output)
pulumi.export("notebookTokens", notebooks.tokens)
pulumi.export("proxyUrl", ready.id.apply(lambda _: proxy.url))
pulumi.export("proxyUrls", ready.id.apply(lambda _: [one.url for one in proxies]))
pulumi.export("proxyAuthority", proxy.authority)
pulumi.export("sshBoxes", box_access.output)
pulumi.export("firewall", firewall.active)
