"""EtcdCluster: etcd with mutual TLS on some of the hosts, as a systemd service on each.

The members of a new cluster find each other by static bootstrap; those of a running one join it as learners.
etcd comes from the host's packages (3.4 in Debian 12, 3.5 in Debian 13), with the lab's own unit.

`membership.py` compares the members with those of before, and shows the steps of a change at preview, or
refuses it. `planning.py` decides which step is next, `convergence.py` takes the steps, in the readiness gate.

Owes: the outputs resolve only when every member is healthy and the cluster has a quorum. An unhealthy member
is named, with the rule that separates it from its peers. A member restarts only when its configuration has
changed, one member at a time; a change of the other members is none of its configuration. A member that lost
its data joins again, and the lab never removes the data of so many members that the quorum is lost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pulumi
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions
from pulumi_command import remote

from components.etcd import snapshots
from components.etcd.config import EtcdConfig
from components.etcd.gate import MembersProvider
from components.etcd.membership import Membership
from components.etcd.rendering import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    CLIENT_FILE,
    KEY_FILE,
    PEER_NAME,
    SETTINGS_FILE,
    UNIT,
    UNIT_FILE,
    client_url,
    etcdctl,
    peer_url,
    render_client,
    render_settings,
)
from components.etcd.restore import Clients, Restore
from components.hosts.files import digest
from components.hosts.host import Host, digest_of
from components.readiness.gate import Check, Gate
from components.shared.secrets import Certificate, CertificateAuthority

PACKAGES = ["etcd-server", "etcd-client"]
MASKED_UNITS = ["etcd.service"]
MEMBER, SNAPSHOTS = "etcd", "etcd-snapshots"
"""The components of a host: a member, with its snapshots; and snapshots alone."""
SECONDS_UNTIL_HEALTHY = 60
_SCRIPTS = Path(__file__).with_name("scripts")
_UNITS = Path(__file__).with_name("units")
# The provider's name in the state of labs that an earlier program has made.
_MembersProvider = MembersProvider


class EtcdCluster(ComponentResource):
    """An etcd cluster with mutual TLS; it is healthy when its outputs are known."""

    members: dict[str, Host]
    """The hosts that are members, by name."""
    client_urls: list[str]
    """The client URL of each member; known before the cluster runs."""
    ready: Gate
    """Done when each member is healthy."""
    endpoints: Output[list[str]]
    """The client URLs, once every member is healthy."""
    restored: dict[str, Input[str]]
    """A variable for what writes into the cluster, which changes with each restore; empty without one."""
    authority: Output[str]
    """Certificate of the authority that servers and clients trust, PEM."""

    def __init__(
        self,
        name: str,
        config: EtcdConfig,
        hosts: Mapping[str, Host],
        authority: CertificateAuthority,
        *,
        clients: Clients,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the cluster.

        Args:
            name: The component's name.
            config: Its section.
            hosts: The lab's hosts.
            authority: Signs the certificates of the members.
            clients: The programs that watch the cluster, for a restore.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:EtcdCluster", name, None, opts)
        for warning in config.warnings():
            pulumi.log.warn(warning, self)
        self._config = config
        self._authority = authority
        self._child = ResourceOptions(parent=self)
        self.members = {member: hosts[member] for member in config.members}
        addresses = {member: host.address for member, host in self.members.items()}
        self.client_urls = [client_url(config, address) for address in addresses.values()]
        membership = Membership(
            f"{name}-membership",
            config,
            {member: peer_url(config, address) for member, address in addresses.items()},
            {host.name: host.replacement_digest for host in hosts.values() if host.replacement_digest},
            opts=self._child,
        )
        started = {member: self._member(host, membership) for member, host in self.members.items()}
        others = [hosts[host] for host in config.snapshot_hosts if host not in self.members]
        restores = []
        self.restored = {}
        if config.restore_from:
            # It reads their snapshots.
            kept = [self._snapshots(host, []) for host in others]
            after = ResourceOptions(parent=self, depends_on=[*started.values(), *kept])
            restore = Restore(f"{name}-restore", config, hosts, clients, after)
            restores.append(restore)
            self.restored = {"RESTORED": restore.restored}
        self.ready = self._gate(started, restores, membership, list(hosts.values()))
        for host in [] if config.restore_from else others:
            # Until the gate has ended, it may have a member, which has its certificate in the same files.
            self._snapshots(host, [self.ready])
        self.endpoints = self.ready.id.apply(lambda _: self.client_urls)
        self.authority = authority.certificate
        self.register_outputs({"endpoints": self.endpoints})

    def _member(self, host: Host, membership: Membership) -> remote.Command:
        """Install and configure one member; the gate starts it."""
        certificate = Certificate(
            f"{host.name}-etcd-certificate",
            self._authority,
            PEER_NAME,
            names=[host.name, host.address, "localhost", "127.0.0.1"],
            opts=self._child,
        )
        files = {
            SETTINGS_FILE: render_settings(self._config, host.name, host.address),
            UNIT_FILE: (_UNITS / UNIT).read_text(),
        }
        own = client_url(self._config, host.address)
        taken = snapshots.files(self._config, host.name, self.client_urls, own)
        # A change of other members, of snapshots or of the operator's etcdctl does not restart the member.
        tools = {**self._client_files(), **taken}
        return host.install(
            MEMBER,
            packages=[*PACKAGES, *(snapshots.PACKAGES if taken else [])],
            mask=MASKED_UNITS,
            files={**files, **tools},
            secrets=self._secrets(certificate),
            owner="etcd:etcd",
            start=_SCRIPTS / "member.sh",
            finish=_SCRIPTS / "snapshots.sh",
            stop=[_SCRIPTS / "remove-member.sh", _SCRIPTS / "remove-snapshots.sh"],
            unit=UNIT,
            config=certificate.certificate.apply(lambda text: digest([*files.values(), text])),
            variables={
                "ENDPOINT": own,
                **snapshots.variables(self._config, host.name, other=SNAPSHOTS),
            },
            opts=ResourceOptions(parent=self, depends_on=[membership]),
        )

    def _snapshots(self, host: Host, after: Sequence[Resource]) -> remote.Command:
        """Install what a host that is no member takes snapshots with; a member has it in its own resource."""
        certificate = Certificate(
            f"{host.name}-etcd-certificate",
            self._authority,
            snapshots.CLIENT_NAME,
            # The trial's member has it too.
            names=["localhost", "127.0.0.1"],
            opts=self._child,
        )
        return host.install(
            SNAPSHOTS,
            # etcd itself is for the trial.
            packages=[*PACKAGES, *snapshots.PACKAGES],
            mask=MASKED_UNITS,
            files={**self._client_files(), **snapshots.files(self._config, host.name, self.client_urls)},
            secrets=self._secrets(certificate),
            owner="etcd:etcd",
            finish=_SCRIPTS / "snapshots.sh",
            stop=_SCRIPTS / "remove-snapshots.sh",
            variables=snapshots.variables(self._config, host.name, other=MEMBER),
            opts=ResourceOptions(parent=self, depends_on=after),
        )

    def _client_files(self) -> dict[str, str]:
        """What etcdctl on a host needs, in addition to a certificate."""
        client = render_client(self.client_urls, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)
        return {CLIENT_FILE: client, **etcdctl()}

    def _secrets(self, certificate: Certificate) -> dict[str, Input[str]]:
        return {
            AUTHORITY_FILE: self._authority.certificate,
            CERTIFICATE_FILE: certificate.certificate,
            KEY_FILE: certificate.private_key,
        }

    def _gate(
        self,
        started: Mapping[str, remote.Command],
        restores: Sequence[Restore],
        membership: Membership,
        lab: Sequence[Host],
    ) -> Gate:
        """Bring the cluster to its members, which are installed by then, and wait until they are healthy."""
        hosts = list(self.members.values())
        # The hosts of former members too: they may have the data from which the new ones begin.
        asked = [host for host in lab if not host.lost]
        checks = [
            Check(
                host,
                {"ENDPOINT": client_url(self._config, host.address)},
                peers=[peer for peer in hosts if peer.name != host.name],
            )
            for host in hosts
        ]
        return Gate(
            "etcd-health",
            _SCRIPTS / "health.sh",
            checks,
            port=self._config.peer_port,
            seconds=SECONDS_UNTIL_HEALTHY,
            # A member that was restarted has to be healthy again. After an interrupted update the members may
            # change back.
            triggers=[
                digest_of(started.values()),
                membership.serial,
                *(restore.restored for restore in restores),
            ],
            provider=MembersProvider(),
            others=[host for host in asked if host.name not in self.members],
            settings={
                "members": {host.name: peer_url(self._config, host.address) for host in hosts},
                "asked": [host.name for host in asked],
                "peer_urls": {host.name: peer_url(self._config, host.address) for host in asked},
                "client_port": self._config.client_port,
                "token": self._config.token,
                "identity": membership.id,
            },
            opts=ResourceOptions(parent=self, depends_on=[*started.values(), *restores]),
        )
