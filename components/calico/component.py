"""CalicoNetwork: one routed network for the containers of all hosts, by Calico without Kubernetes.

On each host Felix programs routes and policy, BIRD announces the host's blocks of addresses to the other
hosts over BGP, confd writes BIRD's configuration from etcd, and the lab's Docker driver gives each container
its interface and address. All are systemd services that start before Docker. The dataplane is what Felix
filters packets with: rules of iptables, or eBPF programs.

Owes: the Docker network exists only when Felix is ready on every host and the BGP sessions are established. A
host that does not become ready says what is missing. Deletion leaves no interface, route, rule, set or file
of Calico behind. A network policy is in force exactly while the config has it.

Network policies: `policy_config.py` has their config, `selector.py` parses Calico's selectors,
`policy_rendering.py` resolves names and renders the policies, `policy_guard.py` refuses those that cut the
proxy off, `isolation.py` renders the policy that isolates students, and this module makes the resources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import ComponentResource, Output, Resource, ResourceOptions, RunError
from pulumi_command import remote

from components.calico.attached import Attached
from components.calico.config import CalicoConfig
from components.calico.flows import BGP_PORT, peers_of
from components.calico.isolation import POLICY, Isolation, render_isolation
from components.calico.policy_rendering import HOST_LABEL, Names, render_policies
from components.calico.rendering import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    CLUSTER_ID,
    ENVIRONMENT_FILE,
    ETCDCTL_FILE,
    FOLDER,
    KEY_FILE,
    REFLECTOR_LABEL,
    REFLECTORS,
    RESERVATION,
    render_confd,
    render_datastore,
    render_environment,
)
from components.calico.settings import NetworkSettings
from components.etcd.component import EtcdCluster
from components.etcd.rendering import etcdctl, render_client
from components.hosts.docker_object import DockerObject
from components.hosts.files import digest
from components.hosts.host import Host, digest_of
from components.hosts.sent_file import SentFile
from components.readiness.gate import Check, Gate
from components.shared.secrets import Certificate, CertificateAuthority

PACKAGES = ["bird2", "nftables", "conntrack", "procps"]
EBPF_PACKAGES = ["libelf1", "libpcap0.8", "zlib1g", "tcpdump"]
"""The libraries of a Felix that loads eBPF programs, and tcpdump for `lab trace`."""
EBPF_UNIT = "calico-lab-bpffs.service"
"""Mounts bpffs for such a Felix, which requires it."""
ARCHIVES = {"iptables": "calico.tar.gz", "ebpf": "calico-ebpf.tar.gz"}
"""The archive of Calico's programs by dataplane, from the toolchain."""
SECONDS_UNTIL_READY = 90
MASKED_UNITS = ["bird.service"]
REMOTE_ARCHIVE = "/var/lib/calico-lab/upload/calico.tar.gz"
UNITS = [
    "calico-lab-calico.target",
    "calico-lab-calico-startup.service",
    "calico-lab-felix.service",
    "calico-lab-confd.service",
    "calico-lab-bird.service",
    "calico-lab-docker-driver.service",
]
_SCRIPTS = Path(__file__).with_name("scripts")
_UNITS = Path(__file__).with_name("units")


@dataclass(frozen=True)
class _Installed:
    """Calico's programs and files on a host; nothing runs yet."""

    programs: Resource
    digest: Output[str]
    """Changes when the services have to be restarted: one part for all of them, one for the users of etcd."""


def archive_digest(archive: Path) -> str:
    """SHA-256 of the archive of programs, as hex digits; the toolchain has written it beside the archive.

    Raises:
        RunError: The toolchain has not built the archive yet.
    """
    written = archive.with_name(f"{archive.name}.sha256")
    if not written.is_file():
        raise RunError(f"{archive}: Calico's programs are not there; 'make setup' makes them")
    return written.read_text().strip()


class CalicoNetwork(ComponentResource):
    """A Docker network of the same name on every host; its containers reach each other across hosts."""

    name: Output[str]
    """The network's name, once it exists on every host."""
    cidr: Output[str]
    """The network's addresses."""
    networks: dict[str, DockerObject]
    """The Docker network by host."""
    output: Output[dict[str, Any]]
    """The stack's output `network`: name, cidr, dataplane and the hosts that are route reflectors."""
    policies: list[Resource]
    """What applies the network policies. A container depends on them if they have to hold from its start."""

    def __init__(
        self,
        name: str,
        config: CalicoConfig,
        hosts: Mapping[str, Host],
        etcd: EtcdCluster,
        *,
        authority: CertificateAuthority,
        dist: Path,
        reserved: Sequence[str] = (),
        names: Names,
        isolation: Isolation | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Create the network.

        Args:
            name: The component's name.
            config: Its section.
            hosts: The lab's hosts; the config may choose some.
            etcd: Calico's datastore.
            authority: The authority that etcd trusts.
            dist: The toolchain's folder with the archives of Calico's programs and the Docker driver.
            reserved: Addresses that a container gets only by asking for them.
            names: What names in network policies mean.
            isolation: The isolation of students; None for none.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:CalicoNetwork", name, None, opts)
        self._config = config
        self._etcd = etcd
        self._authority = authority
        self._archive = dist / ARCHIVES[config.dataplane]
        self._archive_digest = archive_digest(self._archive)
        self._child = ResourceOptions(parent=self)
        members = [hosts[host] for host in config.hosts or hosts]
        settings = NetworkSettings(f"{name}-settings", config, members, opts=self._child)
        archive = SentFile(
            "calico-archive",
            self._archive,
            members,
            digest=self._archive_digest,
            target=REMOTE_ARCHIVE,
            opts=self._child,
        )
        installed = {host.name: self._install(host, archive, settings) for host in members}
        datastore = self._fill_datastore(members, installed, settings, reserved)
        started = {host.name: self._start(host, installed[host.name], datastore) for host in members}
        gate = self._gate(members, started)
        self.networks = {host.name: self._network(host, gate, datastore) for host in members}
        on_networks = ResourceOptions(parent=self, depends_on=list(self.networks.values()))
        Attached(f"{name}-attached", config.name, members, on_networks)
        documents = render_policies(config.policies, names)
        if isolation:
            documents[POLICY] = render_isolation(isolation, config.cidr)
        # Policies select hosts too.
        known = [self._hosts(list(hosts.values()), members[0], started, gate)] if documents else []
        self.policies = [
            self._policy(policy, document, members[0], [datastore, *known])
            for policy, document in documents.items()
        ]
        self.name = Output.all(*[network.id for network in self.networks.values()]).apply(
            lambda _: config.name
        )
        self.cidr = Output.from_input(str(config.cidr))
        self.output = Output.all(
            name=self.name,
            cidr=self.cidr,
            dataplane=config.dataplane,
            routeReflectors=list(config.route_reflectors),
        )
        self.register_outputs({"name": self.name, "cidr": self.cidr})

    def _install(self, host: Host, archive: Resource, settings: Resource) -> _Installed:
        """Install programs, credentials and settings on a host; nothing runs yet."""
        ebpf = self._config.dataplane == "ebpf"
        names = [*PACKAGES, *(EBPF_PACKAGES if ebpf else [])]
        certificate = Certificate(
            f"{host.name}-calico-certificate",
            self._authority,
            f"calico-{host.name}",
            usages=["client"],
            opts=self._child,
        )
        files = {
            ENVIRONMENT_FILE: render_environment(
                self._config, host.name, host.address, self._etcd.client_urls
            ),
            **render_confd(),
            **{
                f"{FOLDER}/{script}": (_SCRIPTS / script).read_text()
                for script in ("detach-programs.sh", "remove-ebpf.sh")
            },
            **{
                f"/etc/systemd/system/{unit}": (_UNITS / unit).read_text()
                for unit in [*UNITS, *([EBPF_UNIT] if ebpf else [])]
            },
        }
        # A change of these does not restart the services.
        tools = {
            f"{FOLDER}/environment.sh": (_SCRIPTS / "environment.sh").read_text(),
            ETCDCTL_FILE: render_client(self._etcd.client_urls, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE),
            **etcdctl(),
            "/usr/local/bin/calicoctl": (_SCRIPTS / "calicoctl").read_text(),
        }
        programs = host.install(
            "calico-programs",
            packages=names,
            mask=MASKED_UNITS,
            files={**files, **tools},
            secrets={
                AUTHORITY_FILE: self._authority.certificate,
                CERTIFICATE_FILE: certificate.certificate,
                KEY_FILE: certificate.private_key,
            },
            start=_SCRIPTS / "unpack.sh",
            stop=_SCRIPTS / "remove-programs.sh",
            variables={"ARCHIVE": REMOTE_ARCHIVE, "DIGEST": self._archive_digest},
            opts=ResourceOptions(parent=self, depends_on=[archive, settings]),
        )
        # Tunnel interfaces get and release their addresses when the services start.
        started_for = [self._config.encapsulation, str(self._config.wireguard), self._config.pool]
        files[ENVIRONMENT_FILE] = render_environment(self._config, host.name, host.address, ())
        running = [*files.values(), *started_for, self._archive_digest]
        # Apart, because other members of etcd concern only the services that use it.
        endpoints = digest(self._etcd.client_urls)
        return _Installed(
            programs,
            certificate.certificate.apply(lambda text: f"{digest([*running, text])} {endpoints}"),
        )

    def _fill_datastore(
        self,
        members: Sequence[Host],
        installed: Mapping[str, _Installed],
        settings: Resource,
        reserved: Sequence[str],
    ) -> remote.Command:
        """Write the pool and the settings of all hosts into etcd, from the first host."""
        first = members[0]
        return first.run(
            "calico-datastore",
            _SCRIPTS / "datastore.sh",
            delete=_SCRIPTS / "remove-datastore.sh",
            variables={
                "HOST": first.name,
                "POOL": self._config.name,
                "NODES": " ".join(host.name for host in members),
                "REFLECTORS": " ".join(self._config.route_reflectors),
                "REFLECTOR_LABEL": REFLECTOR_LABEL,
                "CLUSTER_ID": CLUSTER_ID,
                "PEERING": REFLECTORS,
                "RESERVATION": RESERVATION,
                "ABSENT": "" if self._config.route_reflectors else f"bgppeer/{REFLECTORS}",
                **self._etcd.restored,
            },
            stdin=render_datastore(self._config, reserved),
            # The addresses of a pool cannot change: it is deleted and created again.
            triggers=[self._config.name, str(self._config.cidr), self._config.block_size],
            once=True,
            opts=ResourceOptions(
                parent=self,
                depends_on=[settings, installed[first.name].programs, self._etcd.ready],
                delete_before_replace=True,
            ),
        )

    def _start(self, host: Host, installed: _Installed, datastore: Resource) -> remote.Command:
        """Start a host's services, or restart them when their configuration has changed."""
        return host.install(
            "calico",
            start=_SCRIPTS / "services.sh",
            stop=_SCRIPTS / "remove-services.sh",
            unit="calico-lab-calico.target",
            config=installed.digest,
            variables={
                "UNITS": " ".join(UNITS),
                "CIDR": str(self._config.cidr),
                "DATAPLANE": self._config.dataplane,
            },
            opts=ResourceOptions(parent=self, depends_on=[installed.programs, datastore]),
        )

    def _gate(self, members: Sequence[Host], started: Mapping[str, remote.Command]) -> Gate:
        """Wait until every host is ready and has a session with its peers; all have been started by then."""

        def check(host: Host) -> Check:
            names = peers_of(host.name, [member.name for member in members], self._config.route_reflectors)
            peers = [member for member in members if member.name in names]
            said = " ".join(f"{peer.name}={peer.address}" for peer in peers)
            return Check(host, {"PEERS": said}, peers)

        return Gate(
            "calico-ready",
            _SCRIPTS / "ready.sh",
            [check(host) for host in members],
            port=BGP_PORT,
            seconds=SECONDS_UNTIL_READY,
            variables={
                "WIREGUARD": "yes" if self._config.wireguard else "",
                # The prefix of the BGP sessions' names, so that former sessions do not count.
                "SESSION": "Node" if self._config.route_reflectors else "Mesh",
            },
            # Services that were restarted have to be ready again.
            triggers=[digest_of(started.values())],
            opts=ResourceOptions(parent=self, depends_on=list(started.values())),
        )

    def _network(self, host: Host, gate: Resource, datastore: remote.Command) -> DockerObject:
        """Create the Docker network on a host, because the driver has local scope.

        When the pool is replaced, no container may keep an address of the former one. So the network depends
        on an output of the datastore that only a new pool changes. Pulumi then deletes the containers first,
        the network next and the pool last, and creates them in the opposite order.
        """
        return DockerObject(
            f"{host.name}-{self._config.name}",
            host,
            "network",
            self._config.name,
            _SCRIPTS / "network.sh",
            variables={
                "POOL": datastore.id.apply(lambda _: self._config.pool),
                "CIDR": str(self._config.cidr),
                "MTU": str(self._config.mtu or ""),
            },
            opts=ResourceOptions(parent=self, depends_on=[gate], delete_before_replace=True),
        )

    def _hosts(
        self, hosts: Sequence[Host], first: Host, started: Mapping[str, remote.Command], gate: Resource
    ) -> Resource:
        """Write the addresses of all hosts into the datastore, for network policies."""
        return first.run(
            "calico-hosts",
            _SCRIPTS / "hosts.sh",
            delete=_SCRIPTS / "remove-hosts.sh",
            variables={
                "HOST": first.name,
                "HOSTS": " ".join(f"{host.name}={host.address}" for host in hosts),
                "HOST_LABEL": HOST_LABEL,
                # Restarted services may have other tunnel addresses. A trigger would replace the resource,
                # and the former one would delete last what the new one has written.
                "SERVICES": digest_of(started.values()),
                **self._etcd.restored,
            },
            once=True,
            # After the gate a host has its tunnel addresses.
            opts=ResourceOptions(parent=self, depends_on=[gate]),
        )

    def _policy(self, policy: str, document: str, first: Host, needed: Sequence[Resource]) -> Resource:
        """Write a network policy into the datastore, from the first host."""
        return first.run(
            f"network-policy-{policy}",
            _SCRIPTS / "policy.sh",
            delete=_SCRIPTS / "remove-policy.sh",
            variables={"HOST": first.name, "POLICY": policy, **self._etcd.restored},
            stdin=document,
            once=True,
            opts=ResourceOptions(parent=self, depends_on=needed),
        )
