"""EtcdCluster: etcd with mutual TLS on some of the hosts, as a systemd service on each.

Members find each other by static bootstrap: every member gets the list of all members and waits for the
others. etcd comes from the host's packages (3.4 in Debian 12, 3.5 in Debian 13), with the lab's own unit.

Owes: the outputs resolve only when every member is healthy and the cluster has a quorum. An unhealthy member
is named, with the rule that separates it from its peers. A member restarts only when its configuration has
changed, one member at a time. The members of a running cluster never change by accident. A member that lost
its data joins again, and the lab never removes the data of so many members that the quorum is lost.
"""

from collections.abc import Mapping
from pathlib import Path

import pulumi
from pulumi import ComponentResource, Output, ResourceOptions
from pulumi_command import remote

from components.etcd.config import EtcdConfig
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
from components.hosts.files import digest
from components.hosts.host import Host, digest_of
from components.readiness.gate import Check, Gate
from components.shared.secrets import Certificate, CertificateAuthority

PACKAGES = ["etcd-server", "etcd-client"]
MASKED_UNITS = ["etcd.service"]
SECONDS_UNTIL_HEALTHY = 60
_SCRIPTS = Path(__file__).with_name("scripts")
_UNITS = Path(__file__).with_name("units")


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
    authority: Output[str]
    """Certificate of the authority that servers and clients trust, PEM."""

    def __init__(
        self,
        name: str,
        config: EtcdConfig,
        hosts: Mapping[str, Host],
        authority: CertificateAuthority,
        opts: ResourceOptions | None = None,
    ) -> None:
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
            config.token,
            {member: peer_url(config, address) for member, address in addresses.items()},
            {host.name: host.replacement_digest for host in hosts.values() if host.replacement_digest},
            opts=self._child,
        )
        started = {member: self._member(host, addresses, membership) for member, host in self.members.items()}
        self.ready = self._gate(started)
        self.endpoints = self.ready.id.apply(lambda _: self.client_urls)
        self.authority = authority.certificate
        self.register_outputs({"endpoints": self.endpoints})

    def _member(self, host: Host, addresses: Mapping[str, str], membership: Membership) -> remote.Command:
        """Configure and start one member, without waiting for the others."""
        certificate = Certificate(
            f"{host.name}-etcd-certificate",
            self._authority,
            PEER_NAME,
            names=[host.name, host.address, "localhost", "127.0.0.1"],
            opts=self._child,
        )
        files = {
            SETTINGS_FILE: render_settings(self._config, host.name, addresses),
            CLIENT_FILE: render_client(self.client_urls, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE),
            UNIT_FILE: (_UNITS / UNIT).read_text(),
        }
        return host.install(
            "etcd",
            packages=PACKAGES,
            mask=MASKED_UNITS,
            # A change of the operator's etcdctl does not restart the member.
            files={**files, **etcdctl()},
            secrets={
                AUTHORITY_FILE: self._authority.certificate,
                CERTIFICATE_FILE: certificate.certificate,
                KEY_FILE: certificate.private_key,
            },
            owner="etcd:etcd",
            start=_SCRIPTS / "member.sh",
            stop=_SCRIPTS / "remove-member.sh",
            unit=UNIT,
            config=certificate.certificate.apply(lambda text: digest([*files.values(), text])),
            variables={"ENDPOINT": client_url(self._config, host.address)},
            opts=ResourceOptions(parent=self, depends_on=[membership]),
        )

    def _gate(self, started: Mapping[str, remote.Command]) -> Gate:
        """Wait until every member is healthy; all have been started by then."""
        hosts = list(self.members.values())
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
            # A member that was restarted has to be healthy again.
            triggers=[digest_of(started.values())],
            opts=ResourceOptions(parent=self, depends_on=list(started.values())),
        )
