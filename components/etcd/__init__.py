"""EtcdCluster: etcd with mutual TLS on some of the hosts, as a systemd service on each.

Members find each other by static bootstrap: every member is given the whole list and waits for the others.
Debian's etcd 3.4 is used, from its own packages and with units of the lab's own.

Owes: the component's outputs resolve only when every member is healthy with a quorum behind it; a member that
is not is named, with what it sees of its peers; a restart happens only when a member's configuration has
changed, and then to one member at a time; the list of members of a running cluster is never changed by
accident; a member that has lost its data takes its place again, and the lab itself never takes the data of so
many that there is no quorum.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path

import pulumi
from pulumi import ComponentResource, Output, ResourceOptions
from pulumi_command import remote
from pydantic import Field, field_validator

from components.etcd.membership import Membership
from components.firewall.guard import Need
from components.gate import Gate
from components.hosts import Host
from components.hosts.files import digest
from components.secrets import Certificate, CertificateAuthority
from components.section import HostName, Section, UnprivilegedPort

__all__ = ["EtcdCluster", "EtcdConfig", "etcdctl", "needs", "render_client"]

PACKAGES = ["etcd-server", "etcd-client"]
MASKED_UNITS = ["etcd.service"]
METRICS_PORT = 2381
SECONDS_UNTIL_HEALTHY = 60
PEER_NAME = "calico-lab-etcd"
"""Common name of the members' certificates: the authority signs clients too, which are no peers."""
AUTHORITY_FILE = "/etc/calico-lab/pki/etcd-ca.crt"
CERTIFICATE_FILE = "/etc/calico-lab/pki/etcd.crt"
KEY_FILE = "/etc/calico-lab/pki/etcd.key"
SETTINGS_FILE = "/etc/calico-lab/etcd/etcd.env"
CLIENT_FILE = "/etc/calico-lab/etcd/etcdctl.env"
UNIT = "calico-lab-etcd.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
_HERE = Path(__file__).parent


class EtcdConfig(Section):
    """The `etcd` section of the config."""

    members: tuple[HostName, ...] = Field(
        ("a0", "a1", "a2"), min_length=1, description="The hosts that are members; an odd number of them."
    )
    token: str = Field(
        "etcd-cluster-1",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Keeps clusters apart that are bootstrapped side by side; no secret.",
    )
    peer_port: UnprivilegedPort = Field(2380, description="Where members talk to each other.")
    client_port: UnprivilegedPort = Field(2379, description="Where clients talk to a member.")

    @field_validator("members")
    @classmethod
    def _members_differ(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({member for member in members if members.count(member) > 1}):
            raise ValueError(f"{', '.join(twice)} is named more than once; name each member once")
        return members

    def warnings(self) -> list[str]:
        """What is allowed and yet better done otherwise."""
        count = len(self.members)
        if count % 2:
            return []
        return [
            f"etcd.members: a quorum of {count} members survives the loss of {(count - 1) // 2}, "
            f"as one of {count - 1} does; take an odd number"
        ]


def needs(config: EtcdConfig, clients: Sequence[str]) -> Iterator[Need]:
    """The connections between hosts that the cluster lives by.

    Args:
        config: Its section.
        clients: The hosts with programs that keep something in it; a member is a client of the others, too,
            when it joins or leaves them.
    """
    for origin in dict.fromkeys([*clients, *config.members]):
        for member in config.members:
            if member != origin:
                yield Need("etcd's clients", origin, member, "tcp", config.client_port)
    for origin, member in permutations(config.members, 2):
        yield Need("etcd's peers", origin, member, "tcp", config.peer_port)


def peer_url(config: EtcdConfig, address: str) -> str:
    """Where the member at an address answers its peers."""
    return f"https://{address}:{config.peer_port}"


def client_url(config: EtcdConfig, address: str) -> str:
    """Where the member at an address answers clients."""
    return f"https://{address}:{config.client_port}"


def render_settings(config: EtcdConfig, member: str, addresses: Mapping[str, str]) -> str:
    """Render a member's settings, a variable per option of its command line (etcd's "Configuration options").

    Not in etcd's own kind of file: from 3.5 on that wants a list where up to 3.4 it wants a text.

    Args:
        config: The cluster's section.
        member: Which member.
        addresses: Address by member.
    """
    address = addresses[member]
    cluster = ",".join(f"{name}={peer_url(config, addresses[name])}" for name in addresses)
    return f"""\
ETCD_NAME={member}
ETCD_DATA_DIR=/var/lib/calico-lab/etcd

ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN={config.token}
ETCD_INITIAL_CLUSTER={cluster}
ETCD_INITIAL_ADVERTISE_PEER_URLS={peer_url(config, address)}
ETCD_ADVERTISE_CLIENT_URLS={client_url(config, address)}

ETCD_LISTEN_PEER_URLS={peer_url(config, address)}
ETCD_PEER_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_ALLOWED_CN={PEER_NAME}
ETCD_PEER_TRUSTED_CA_FILE={AUTHORITY_FILE}
ETCD_PEER_CERT_FILE={CERTIFICATE_FILE}
ETCD_PEER_KEY_FILE={KEY_FILE}

ETCD_LISTEN_CLIENT_URLS={client_url(config, address)},{client_url(config, "127.0.0.1")}
ETCD_CLIENT_CERT_AUTH=true
ETCD_TRUSTED_CA_FILE={AUTHORITY_FILE}
ETCD_CERT_FILE={CERTIFICATE_FILE}
ETCD_KEY_FILE={KEY_FILE}

ETCD_LISTEN_METRICS_URLS=http://127.0.0.1:{METRICS_PORT}

# Calico rewrites its status keys all day; an hour of their history is more than anyone watches.
ETCD_AUTO_COMPACTION_MODE=periodic
ETCD_AUTO_COMPACTION_RETENTION=1h
ETCD_QUOTA_BACKEND_BYTES={2 * 1024**3}
"""


def render_client(endpoints: Sequence[str], authority: str, certificate: str, key: str) -> str:
    """Render the environment with which etcdctl on a host speaks to the whole cluster.

    Args:
        endpoints: The members' client URLs.
        authority: Path of the certificate of the authority that the host trusts.
        certificate: Path of the host's own certificate, as a member or as a client.
        key: Path of the key of that.
    """
    return f"""\
ETCDCTL_API=3
ETCDCTL_ENDPOINTS={",".join(endpoints)}
ETCDCTL_CACERT={authority}
ETCDCTL_CERT={certificate}
ETCDCTL_KEY={key}
"""


def etcdctl() -> dict[str, str]:
    """The etcdctl that the operator types on a host, by path, for `Host.files`.

    It finds the host's environment, and etcdctl itself where a package has brought it.
    """
    return {"/usr/local/bin/etcdctl": (_HERE / "etcdctl").read_text()}


class EtcdCluster(ComponentResource):
    """An etcd cluster with mutual TLS, healthy when its outputs are known."""

    members: dict[str, Host]
    """The hosts that are members, by name."""
    client_urls: list[str]
    """Where each member answers clients; known before the cluster is."""
    ready: list[Gate]
    """The gates: done when each member is healthy."""
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
            {host.name: host.plan for host in hosts.values() if host.plan},
            opts=self._child,
        )
        started = {member: self._member(host, addresses, membership) for member, host in self.members.items()}
        self.ready = [self._gate(host, started) for host in self.members.values()]
        self.endpoints = Output.all(*[gate.id for gate in self.ready]).apply(lambda _: self.client_urls)
        self.authority = authority.certificate
        self.register_outputs({"endpoints": self.endpoints})

    def _member(self, host: Host, addresses: Mapping[str, str], membership: Membership) -> remote.Command:
        """Configure and start one member, without waiting for the others."""
        packages = host.packages("etcd-packages", PACKAGES, mask=MASKED_UNITS, opts=self._child)
        certificate = Certificate(
            f"{host.name}-etcd-certificate",
            self._authority,
            PEER_NAME,
            names=[host.name, host.address, "localhost", "127.0.0.1"],
            opts=self._child,
        )
        pki = host.files(
            "etcd-pki",
            {
                AUTHORITY_FILE: self._authority.certificate,
                CERTIFICATE_FILE: certificate.certificate,
                KEY_FILE: certificate.private_key,
            },
            mode="0600",
            owner="etcd:etcd",
            opts=ResourceOptions(parent=self, depends_on=[packages]),
        )
        files = {
            SETTINGS_FILE: render_settings(self._config, host.name, addresses),
            CLIENT_FILE: render_client(self.client_urls, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE),
            UNIT_FILE: (_HERE / UNIT).read_text(),
        }
        # What the operator types is no reason to restart a member.
        settings = host.files("etcd-settings", {**files, **etcdctl()}, opts=self._child)
        before = [packages, pki, settings, membership]
        # What removes it is there before it: the engine forgets a resource whose creation was cut off or
        # failed, and a member that was started all the same would go on from files that are removed.
        removal = host.run(
            "etcd-removal",
            None,
            delete=_HERE / "remove-member.sh",
            variables={"HOST": host.name},
            opts=ResourceOptions(parent=self, depends_on=before),
        )
        return host.run(
            "etcd",
            _HERE / "member.sh",
            variables={
                "HOST": host.name,
                "ENDPOINT": client_url(self._config, host.address),
                "CONFIG": Output.all(*files.values(), certificate.certificate).apply(digest),
            },
            opts=ResourceOptions(parent=self, depends_on=[*before, removal]),
        )

    def _gate(self, host: Host, started: Mapping[str, remote.Command]) -> Gate:
        """Wait until one member is healthy; every member has been started by then."""
        peers = [peer for peer in self.members.values() if peer.name != host.name]
        return Gate(
            "etcd-health",
            host,
            _HERE / "health.sh",
            peers=peers,
            port=self._config.peer_port,
            seconds=SECONDS_UNTIL_HEALTHY,
            variables={
                "ENDPOINT": client_url(self._config, host.address),
                "PEERS": " ".join(f"{peer.name}={peer.address}" for peer in peers),
                "PEER_PORT": str(self._config.peer_port),
            },
            # A member that was started anew has to show its health anew.
            triggers=[started[host.name].create.apply(lambda command: digest([str(command)]))],
            opts=ResourceOptions(parent=self, depends_on=list(started.values())),
        )
