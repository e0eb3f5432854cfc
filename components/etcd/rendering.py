"""The files of an etcd member and of etcdctl, as text, and the flows between hosts that etcd needs. Pure."""

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from components.shared.flows import HostFlow

if TYPE_CHECKING:
    from components.etcd.config import EtcdConfig

_SCRIPTS = Path(__file__).with_name("scripts")
METRICS_PORT = 2381
PEER_NAME = "calico-lab-etcd"
"""Common name of the members' certificates. Members accept no other peer: the authority signs clients too."""
AUTHORITY_FILE = "/etc/calico-lab/pki/etcd-ca.crt"
CERTIFICATE_FILE = "/etc/calico-lab/pki/etcd.crt"
KEY_FILE = "/etc/calico-lab/pki/etcd.key"
SETTINGS_FILE = "/etc/calico-lab/etcd/etcd.env"
CLIENT_FILE = "/etc/calico-lab/etcd/etcdctl.env"
UNIT = "calico-lab-etcd.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"


def required_flows(config: "EtcdConfig", clients: Sequence[str]) -> Iterator[HostFlow]:
    """The connections between hosts that the cluster lives by.

    Args:
        config: Its section.
        clients: The hosts with programs that keep something in it. A host with snapshots is one too; a
            member is a client of the others when it joins or leaves them.
    """
    for origin in dict.fromkeys([*clients, *config.snapshot_hosts, *config.members]):
        for member in config.members:
            if member != origin:
                yield HostFlow("etcd's clients", origin, member, "tcp", config.client_port)
    for origin, member in permutations(config.members, 2):
        yield HostFlow("etcd's peers", origin, member, "tcp", config.peer_port)


def peer_url(config: "EtcdConfig", address: str) -> str:
    """Where the member at an address answers its peers."""
    return f"https://{address}:{config.peer_port}"


def client_url(config: "EtcdConfig", address: str) -> str:
    """Where the member at an address answers clients."""
    return f"https://{address}:{config.client_port}"


def render_settings(config: "EtcdConfig", member: str, address: str) -> str:
    """Render a member's settings, a variable per option of its command line (etcd's "Configuration options").

    The members of the bootstrap are not among them, because etcd reads these at a member's first start only,
    and a change of the others must not restart it: `begin-member.sh` gives them.

    Not in etcd's own kind of file: from 3.5 on that wants a list where up to 3.4 it wants a text.

    Args:
        config: The cluster's section.
        member: Which member.
        address: Its host's address.
    """
    return f"""\
ETCD_NAME={member}
ETCD_DATA_DIR=/var/lib/calico-lab/etcd

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
ETCD_QUOTA_BACKEND_BYTES={config.quota * 1024**2}

# A member whose data differ from the others' does not start; later the leader compares all (alarm CORRUPT).
# etcd ignores the variables that its version does not know.
ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK=true
ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME=1h
ETCD_EXPERIMENTAL_COMPACT_HASH_CHECK_ENABLED=true
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
    return {"/usr/local/bin/etcdctl": (_SCRIPTS / "etcdctl").read_text()}
