"""The texts that Calico's programs read, as pure functions of the config."""

from collections.abc import Mapping, Sequence

from components.calico.config import CalicoConfig

FOLDER = "/etc/calico-lab/calico"
BIRD_FOLDER = "/var/lib/calico-lab/calico/bird"
CLUSTER_ID = "244.0.0.1"
"""The route reflectors' cluster (RFC 4456); written like an address, and none."""
REFLECTOR_LABEL = "calico-lab.route-reflector"
"""Label of the nodes that are route reflectors."""
REFLECTORS = "route-reflectors"
RESERVATION = "calico-lab-services"
AUTHORITY_FILE = "/etc/calico-lab/pki/calico-ca.crt"
CERTIFICATE_FILE = "/etc/calico-lab/pki/calico.crt"
KEY_FILE = "/etc/calico-lab/pki/calico.key"
ENVIRONMENT_FILE = f"{FOLDER}/calico.env"
ETCDCTL_FILE = f"{FOLDER}/etcdctl.env"

_EBPF = """
FELIX_BPFENABLED=true
# Balancing between the addresses of Kubernetes' services, of which there are none.
FELIX_BPFCONNECTTIMELOADBALANCING=Disabled
FELIX_BPFHOSTNETWORKEDNATWITHOUTCTLB=Disabled
# Not the newer hook, tcx: Debian 12's libbpf does not know it, and Linux 6.18 refused Felix' programs for it.
FELIX_BPFATTACHTYPE=TC
# Whether others may load programs, and how they are hardened, stays as the machine's owner has set it.
FELIX_BPFDISABLEUNPRIVILEGED=false
FELIX_BPFJITHARDENING=Strict
"""

VXLAN_MODES = {"none": "Never", "vxlan": "Always", "vxlan-cross-subnet": "CrossSubnet"}

# What confd watches for each of BIRD's three files: the lists of Calico's own confd/etc/calico/confd/conf.d.
_WATCHED: Mapping[str, tuple[str, Sequence[str]]] = {
    "bird": (
        "/calico/",
        ["/bgp/v1/host", "/bgp/v1/global", "/resources/v3/projectcalico.org/bgpfilters"],
    ),
    "bird_aggr": (
        "/calico/",
        ["/bgp/v1/host", "/bgp/v1/global", "/ipam/v2/host//NODENAME/ipv4/block", "/staticroutes"],
    ),
    "bird_ipam": (
        "/calico",
        [
            "/v1/ipam/v4/pool",
            "/bgp/v1/host//NODENAME",
            "/bgp/v1/global/svc_loadbalancer_ips",
            "/staticroutes",
            "/rejectcidrs",
        ],
    ),
}


def render_environment(config: CalicoConfig, host: str, address: str, endpoints: Sequence[str]) -> str:
    """Render the environment of every Calico program on a host, the driver and calicoctl included.

    Felix does not know the variables of the others and has its own for the same things
    (node/filesystem/etc/service/available/felix/run).
    """
    datastore = ",".join(endpoints)
    dataplane = _EBPF if config.dataplane == "ebpf" else ""
    return f"""\
NODENAME={host}
IP={address}
CALICO_NETWORKING_BACKEND=bird
CALICO_DISABLE_FILE_LOGGING=true
NO_DEFAULT_POOLS=true
WAIT_FOR_DATASTORE=true
LAB_CIDR={config.cidr}

DATASTORE_TYPE=etcdv3
ETCD_ENDPOINTS={datastore}
ETCD_CA_CERT_FILE={AUTHORITY_FILE}
ETCD_CERT_FILE={CERTIFICATE_FILE}
ETCD_KEY_FILE={KEY_FILE}

FELIX_FELIXHOSTNAME={host}
FELIX_DATASTORETYPE=etcdv3
FELIX_ETCDENDPOINTS={datastore}
FELIX_ETCDCAFILE={AUTHORITY_FILE}
FELIX_ETCDCERTFILE={CERTIFICATE_FILE}
FELIX_ETCDKEYFILE={KEY_FILE}
FELIX_HEALTHENABLED=true
FELIX_LOGFILEPATH=none
FELIX_LOGSEVERITYFILE=none
FELIX_LOGSEVERITYSYS=none
FELIX_IPTABLESBACKEND=NFT
# A program built without cgo has no libbpf, and would panic when it looks for what BPF mode left behind.
# The spelling is what felix/bpf/nat/connecttime.go asks for.
FELIX_DebugSkipCTLBCleanup=true
{dataplane}"""


def render_datastore(config: CalicoConfig, reserved: Sequence[str] = ()) -> str:
    """Render the resources that the network consists of, as `calicoctl apply` takes them.

    Args:
        config: The network's section.
        reserved: Addresses that only who asks for them by name gets: those of the lab's services.
    """
    documents = [_route_reflectors()] if config.route_reflectors else []
    documents += [_bgp(config), _felix(config), _pool(config)]
    if reserved:
        documents.append(_reservation(reserved))
    return "---\n".join(documents)


def _route_reflectors() -> str:
    # The other direction, which gives a reflector its clients, is Calico's own doing (confd's client.go,
    # automaticReversePeering).
    return f"""\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: {REFLECTORS}
spec:
  nodeSelector: all()
  peerSelector: has({REFLECTOR_LABEL})
"""


def _bgp(config: CalicoConfig) -> str:
    return f"""\
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata:
  name: default
spec:
  asNumber: {config.as_number}
  nodeToNodeMeshEnabled: {str(not config.route_reflectors).lower()}
  logSeverityScreen: Info
"""


def _felix(config: CalicoConfig) -> str:
    lines = [f"  vxlanMTU: {config.mtu}", f"  wireguardMTU: {config.mtu}"] if config.mtu else []
    lines += ["  wireguardEnabled: true"] if config.wireguard else []
    return "\n".join(
        [
            """\
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata:
  name: default
spec:
  # What a container sends to its own host meets the host's rules, as what it sends to another host does.
  defaultEndpointToHostAction: Return
  ipv6Support: false
  # Calico's startup adds these two where they are not there (startup.go); to take them away restarts Felix.
  logSeverityScreen: Info
  reportingInterval: 0s
  usageReportingEnabled: false""",
            *lines,
            "",
        ]
    )


def _pool(config: CalicoConfig) -> str:
    return f"""\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: {config.name}
spec:
  cidr: {config.cidr}
  blockSize: {config.block_size}
  ipipMode: Never
  vxlanMode: {VXLAN_MODES[config.encapsulation]}
  natOutgoing: {str(config.nat_outgoing).lower()}
  nodeSelector: all()
"""


def _reservation(addresses: Sequence[str]) -> str:
    cidrs = "\n".join(f"  - {address}/32" for address in addresses)
    return f"""\
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata:
  name: {RESERVATION}
spec:
  reservedCIDRs:
{cidrs}
"""


def render_confd() -> dict[str, str]:
    """Render confd's resource files by path: Calico's own, with the lab's paths and service manager."""
    return {f"{FOLDER}/confd/conf.d/{name}.toml": _confd_resource(name) for name in _WATCHED}


def _confd_resource(name: str) -> str:
    prefix, keys = _WATCHED[name]
    watched = "".join(f'    "{key}",\n' for key in keys)
    # The other two files are fragments, which bird.cfg includes.
    check = 'check_cmd = "/usr/sbin/bird -p -c {{.src}}"\n' if name == "bird" else ""
    return f"""\
[template]
src = "{name}.cfg.template"
dest = "{BIRD_FOLDER}/{name}.cfg"
prefix = "{prefix}"
keys = [
{watched}]
{check}\
# BIRD reads its configuration again at SIGHUP; one that does not run yet reads it when it starts.
reload_cmd = "systemctl kill --kill-who=main --signal=HUP calico-lab-bird.service || true"
"""
