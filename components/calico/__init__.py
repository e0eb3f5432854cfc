"""CalicoNetwork: one routed network for the containers of every host, by Calico without Kubernetes.

On each host Felix programs routes and policy, BIRD tells the other hosts over BGP which blocks of addresses
lie there, confd writes BIRD's configuration from etcd, and the lab's Docker driver gives each container its
interface and address. All are systemd services that come back with the host, before Docker.

Owes: the Docker network is there only when the host's Felix is ready and its BGP sessions with all other
hosts are established; a host that does not get there says what is missing; deletion leaves no interface,
route, rule, set or file of Calico behind.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions, RunError
from pulumi_command import remote

from components.calico.config import CalicoConfig
from components.calico.rendering import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    FOLDER,
    KEY_FILE,
    render_confd,
    render_datastore,
    render_environment,
)
from components.etcd import EtcdCluster
from components.firewall.guard import BGP_PORT
from components.gate import Gate
from components.hosts import Host
from components.hosts.files import digest
from components.secrets import Certificate, CertificateAuthority

__all__ = ["CalicoConfig", "CalicoNetwork"]

PACKAGES = ["bird", "nftables", "conntrack", "iproute2", "procps"]
SECONDS_UNTIL_READY = 90
MASKED_UNITS = ["bird.service", "bird6.service"]
ENVIRONMENT_FILE = f"{FOLDER}/calico.env"
REMOTE_ARCHIVE = "/var/tmp/calico-lab-calico.tar.gz"  # noqa: S108 - checked by digest before it is unpacked
UNITS = [
    "calico-lab-calico.target",
    "calico-lab-calico-startup.service",
    "calico-lab-felix.service",
    "calico-lab-confd.service",
    "calico-lab-bird.service",
    "calico-lab-docker-driver.service",
]
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Installed:
    """What has been brought to a host before anything of Calico runs there."""

    resources: Sequence[Resource]
    digest: Output[str]
    """Changes when the running programs would have to be started anew."""


def archive_digest(archive: Path) -> str:
    """SHA-256 of the archive of programs, as hex digits.

    Raises:
        RunError: The toolchain has not made it yet.
    """
    if not archive.is_file():
        raise RunError(f"{archive}: Calico's programs are not there; 'make setup' makes them")
    with archive.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class CalicoNetwork(ComponentResource):
    """A Docker network of one name on every host, its containers reachable from all of them."""

    name: Output[str]
    """The network's name, once it is there on every host."""
    cidr: Output[str]
    """The containers' addresses."""
    networks: dict[str, docker.Network]
    """The Docker network by host: what a container on that host is attached to."""
    network_ids: Output[dict[str, str]]
    """Docker's ID of the network by host."""

    def __init__(
        self,
        name: str,
        config: CalicoConfig,
        hosts: Mapping[str, Host],
        etcd: EtcdCluster,
        *,
        authority: CertificateAuthority,
        dist: Path,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Make the network.

        Args:
            name: The component's name.
            config: Its section.
            hosts: The lab's hosts, of which the config may choose.
            etcd: Calico's datastore.
            authority: What etcd trusts.
            dist: The archive of Calico's programs and the Docker driver, as the toolchain makes it.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:CalicoNetwork", name, None, opts)
        self._config = config
        self._etcd = etcd
        self._authority = authority
        self._archive = dist
        self._archive_digest = archive_digest(dist)
        self._child = ResourceOptions(parent=self)
        members = [hosts[host] for host in config.hosts or hosts]
        installed = {host.name: self._install(host) for host in members}
        datastore = self._fill_datastore(members, installed)
        started = {host.name: self._start(host, installed[host.name], datastore) for host in members}
        self.networks = {
            host.name: self._network(host, self._gate(host, members, started)) for host in members
        }
        self.network_ids = Output.all(**{host: network.id for host, network in self.networks.items()})
        self.name = self.network_ids.apply(lambda _: config.name)
        self.cidr = Output.from_input(str(config.cidr))
        self.register_outputs({"name": self.name, "cidr": self.cidr, "networkIds": self.network_ids})

    def _install(self, host: Host) -> _Installed:
        """Bring programs, credentials and settings to a host; nothing runs yet."""
        packages = host.packages("calico-packages", PACKAGES, mask=MASKED_UNITS, opts=self._child)
        archive = remote.CopyToRemote(
            f"{host.name}-calico-archive",
            connection=host.connection,
            source=pulumi.FileAsset(str(self._archive)),
            remote_path=REMOTE_ARCHIVE,
            opts=host.options(self._child),
        )
        programs = host.run(
            "calico-programs",
            _HERE / "unpack.sh",
            delete=_HERE / "remove-programs.sh",
            variables={"HOST": host.name, "ARCHIVE": REMOTE_ARCHIVE, "DIGEST": self._archive_digest},
            opts=ResourceOptions(parent=self, depends_on=[archive]),
        )
        certificate = Certificate(
            f"{host.name}-calico-certificate",
            self._authority,
            f"calico-{host.name}",
            usages=["client"],
            opts=self._child,
        )
        credentials = {
            AUTHORITY_FILE: self._authority.certificate,
            CERTIFICATE_FILE: certificate.certificate,
            KEY_FILE: certificate.private_key,
        }
        pki = host.files("calico-pki", credentials, mode="0600", opts=self._child)
        files = {
            ENVIRONMENT_FILE: render_environment(
                self._config, host.name, host.address, self._etcd.client_urls
            ),
            **render_confd(),
            **{f"/etc/systemd/system/{unit}": (_HERE / unit).read_text() for unit in UNITS},
        }
        settings = host.files("calico-settings", files, opts=self._child)
        running = [*files.values(), self._config.encapsulation, self._archive_digest, certificate.certificate]
        return _Installed([packages, programs, pki, settings], Output.all(*running).apply(digest))

    def _fill_datastore(self, members: Sequence[Host], installed: Mapping[str, _Installed]) -> Resource:
        """Write the pool and the settings of all hosts into etcd, from the first of them."""
        first = members[0]
        return first.run(
            "calico-datastore",
            _HERE / "datastore.sh",
            delete=_HERE / "remove-datastore.sh",
            variables={
                "HOST": first.name,
                "POOL": self._config.name,
                "NODES": " ".join(host.name for host in members),
            },
            stdin=render_datastore(self._config),
            # The addresses of a pool cannot be changed: it is given up and made anew.
            triggers=[self._config.name, str(self._config.cidr), self._config.block_size],
            opts=ResourceOptions(
                parent=self,
                depends_on=[*installed[first.name].resources, *self._etcd.ready],
                delete_before_replace=True,
            ),
        )

    def _start(self, host: Host, installed: _Installed, datastore: Resource) -> remote.Command:
        """Start a host's services, or start them anew with what has changed."""
        return host.run(
            "calico",
            _HERE / "services.sh",
            delete=_HERE / "remove-services.sh",
            variables={
                "HOST": host.name,
                "CONFIG": installed.digest,
                "UNITS": " ".join(UNITS),
                "CIDR": str(self._config.cidr),
            },
            opts=ResourceOptions(parent=self, depends_on=[*installed.resources, datastore]),
        )

    def _gate(self, host: Host, members: Sequence[Host], started: Mapping[str, remote.Command]) -> Gate:
        """Wait until a host is ready and has heard from every other; all have been started by then."""
        peers = [peer for peer in members if peer.name != host.name]
        return Gate(
            "calico-ready",
            host,
            _HERE / "ready.sh",
            peers=peers,
            port=BGP_PORT,
            seconds=SECONDS_UNTIL_READY,
            variables={"PEERS": " ".join(f"{peer.name}={peer.address}" for peer in peers)},
            # Services that were started anew have to show that they are ready anew.
            triggers=[started[host.name].create.apply(lambda command: digest([str(command)]))],
            opts=ResourceOptions(parent=self, depends_on=list(started.values())),
        )

    def _network(self, host: Host, gate: Resource) -> docker.Network:
        """Make the Docker network on a host; its driver has local scope, so each host is told of it."""
        return docker.Network(
            f"{host.name}-{self._config.name}",
            name=self._config.name,
            driver="calico",
            ipam_driver="calico-ipam",
            ipam_configs=[docker.NetworkIpamConfigArgs(subnet=str(self._config.cidr))],
            opts=host.docker_options(
                ResourceOptions(parent=self, depends_on=[gate], delete_before_replace=True)
            ),
        )
