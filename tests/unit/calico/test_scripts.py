"""The network's scripts: what is unpacked, when services start, what a gate says, what removal leaves."""

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from components.calico import component as calico
from tests.unit.pretend_host import FOLDERS, PretendHost

HERE = Path(calico.__file__).with_name("scripts")
CASES = Path(__file__).parent / "cases"
PROGRAMS = "/opt/calico-lab/calico"
CALICOCTL = f"{PROGRAMS}/bin/calicoctl"
ENVIRONMENT = "/etc/calico-lab/calico/calico.env"
SERVICES = {
    "HOST": "a0",
    "UNITS": "calico-lab-calico.target calico-lab-bird.service",
    "DATAPLANE": "iptables",
}
SYSCTL = """\
net.ipv4.conf.all.rp_filter = 0
net.ipv4.conf.cali12345678901.rp_filter = 0
net.ipv4.conf.eth0.accept_local = 0
"""


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    host = PretendHost(tmp_path)
    host.write(ENVIRONMENT, "NODENAME=a0\n")
    for folder in ("/etc/calico-lab/calico/confd", "/var/lib/calico-lab"):
        host.path(folder).mkdir(parents=True)
    for script in ("detach-programs.sh", "environment.sh", "remove-ebpf.sh"):
        text = FOLDERS.sub(lambda found: f"{host.root}{found[0]}", (HERE / script).read_text())
        host.write(f"/etc/calico-lab/calico/{script}", text)
    return host


def calicoctl(host: PretendHost, body: str = "") -> None:
    """Put a calicoctl on the host that records how it was called."""
    host.write(CALICOCTL, f'#!/bin/bash\necho "calicoctl $*" >>"{host.root}/calls"\n{body}\n')
    host.path(CALICOCTL).chmod(0o755)


# ---- programs


def archive(host: PretendHost, content: dict[str, str]) -> dict[str, str]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    path = host.root / "calico.tar.gz"
    path.write_bytes(packed.getvalue())
    return {"HOST": "a0", "ARCHIVE": str(path), "DIGEST": hashlib.sha256(packed.getvalue()).hexdigest()}


def test_programs_take_the_place_of_an_earlier_version(host: PretendHost) -> None:
    for version, extra in ("1", "old"), ("2", "new"):
        variables = archive(host, {"bin/calico-node": version, f"bin/{extra}": ""})
        assert host.run(HERE / "unpack.sh", variables).returncode == 0
    assert host.path(f"{PROGRAMS}/bin/calico-node").read_text() == "2"
    assert sorted(path.name for path in host.path(f"{PROGRAMS}/bin").iterdir()) == ["calico-node", "new"]
    assert [path.name for path in host.path("/opt/calico-lab").iterdir()] == ["calico"]


def test_programs_that_are_there_are_not_unpacked_again(host: PretendHost) -> None:
    variables = archive(host, {"bin/calico-node": "1"})
    for _ in range(2):
        assert host.run(HERE / "unpack.sh", variables).returncode == 0
        assert not Path(variables["ARCHIVE"]).exists()


def test_an_archive_that_is_another_is_not_unpacked(host: PretendHost) -> None:
    variables = archive(host, {"bin/calico-node": "1"})
    done = host.run(HERE / "unpack.sh", {**variables, "DIGEST": "0" * 64})
    assert done.returncode == 1
    assert done.stderr.startswith("a0: calico: ")
    assert "send it again: " in done.stderr
    assert not host.path(PROGRAMS).exists()


REPLACED = {
    "overwritten": 'cat "$ARCHIVE.other" >"$ARCHIVE"',
    "replaced": 'mv "$ARCHIVE.other" "$ARCHIVE"',
    "a pipe": 'rm "$ARCHIVE"; mkfifo "$ARCHIVE"',
    "gone": 'rm "$ARCHIVE"',
}


@pytest.mark.parametrize("change", REPLACED)
def test_what_was_checked_is_unpacked_whatever_takes_its_place(host: PretendHost, change: str) -> None:
    variables = archive(host, {"bin/calico-node": "other"})
    path = Path(variables["ARCHIVE"])
    path.rename(f"{path}.other")
    variables = archive(host, {"bin/calico-node": "sent"})
    # The moment after the check.
    checked = f'/usr/bin/sha256sum "$@" && {{ {REPLACED[change].replace("$ARCHIVE", str(path))}; }}'
    host.program("sha256sum", checked)
    done = host.run(HERE / "unpack.sh", variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert host.path(f"{PROGRAMS}/bin/calico-node").read_text() == "sent"


def test_a_pipe_in_the_place_of_the_archive_ends(host: PretendHost) -> None:
    variables = archive(host, {})
    Path(variables["ARCHIVE"]).unlink()
    os.mkfifo(variables["ARCHIVE"])
    done = host.run(HERE / "unpack.sh", variables, instead={"timeout 60": "timeout 0.2"})
    assert done.returncode == 1
    assert "is missing or differs from the archive that was sent" in done.stderr
    assert list(host.path("/opt/calico-lab").iterdir()) == []


def test_no_program_is_left(host: PretendHost) -> None:
    variables = archive(host, {"bin/calico-node": "1"})
    host.run(HERE / "unpack.sh", variables)
    for _ in range(2):
        assert host.run(HERE / "remove-programs.sh", variables).returncode == 0
        assert list(host.path("/opt/calico-lab").iterdir()) == []


# ---- datastore


DATASTORE = {
    "HOST": "a0",
    "POOL": "netv",
    "NODES": "a0 a1",
    "REFLECTORS": "",
    "REFLECTOR_LABEL": "reflects",
    "CLUSTER_ID": "244.0.0.1",
    "PEERING": "route-reflectors",
    "RESERVATION": "services",
    "ABSENT": "",
}


def nodes(host: PretendHost, *names: str, reflectors: str = "") -> None:
    """Put a calicoctl on the host that knows some nodes, and keeps what is applied and created."""
    there = "\\n".join(["NAME", *names, ""])
    calicoctl(
        host,
        f"""case "$*" in
        *apply*) cat >"{host.root}/applied" ;;
        *create*) cat >>"{host.root}/created" ;;
        *"get nodes"*template*) printf '%s' '{reflectors}' ;;
        *"get nodes"*) printf '{there}' ;;
        esac""",
    )


def test_resources_are_applied_and_strangers_dropped(host: PretendHost) -> None:
    nodes(host, "a0", "gone")
    assert host.run(HERE / "datastore.sh", DATASTORE, "kind: IPPool\n").returncode == 0
    assert (host.root / "applied").read_text() == "kind: IPPool\n"
    deleted = [call for call in host.calls if " delete " in call]
    assert deleted == ["calicoctl --allow-version-mismatch delete node gone"]
    assert not [call for call in host.calls if " patch " in call]


def test_hosts_become_route_reflectors_before_the_mesh_ends(host: PretendHost) -> None:
    nodes(host, "a0")
    variables = {**DATASTORE, "REFLECTORS": "a0 a1"}
    assert host.run(HERE / "datastore.sh", variables, "kind: BGPPeer\n").returncode == 0
    patches = [call for call in host.calls if " patch " in call]
    merged = (
        '{"metadata":{"labels":{"reflects":"true"}},"spec":{"bgp":{"routeReflectorClusterID":"244.0.0.1"}}}'
    )
    assert patches == [
        f"calicoctl --allow-version-mismatch patch node {node} --patch={merged}" for node in ("a0", "a1")
    ]
    assert "metadata: {name: a1}" in (host.root / "created").read_text()
    assert "a0" not in (host.root / "created").read_text()
    applied = next(index for index, call in enumerate(host.calls) if " apply " in call)
    assert host.calls.index(patches[-1]) < applied


def test_hosts_that_reflect_no_more_are_told_so(host: PretendHost) -> None:
    nodes(host, "a0", "a1", reflectors="a0 ")
    variables = {**DATASTORE, "ABSENT": "bgppeer/route-reflectors"}
    assert host.run(HERE / "datastore.sh", variables, "kind: BGPConfiguration\n").returncode == 0
    [patch] = [call for call in host.calls if " patch " in call]
    merged = '{"metadata":{"labels":{"reflects":null}},"spec":{"bgp":{"routeReflectorClusterID":""}}}'
    assert patch.endswith(f"node a0 --patch={merged}")
    delete = "calicoctl --allow-version-mismatch delete --skip-not-exists bgppeer route-reflectors"
    assert host.calls.index(delete) > host.calls.index(patch)


def test_a_refused_resource_is_an_error_that_says_why(host: PretendHost) -> None:
    refusal = "echo 'IPPool(netv) CIDR overlaps with another'; exit 1"
    calicoctl(host, f'case "$*" in *apply*) {refusal} ;; esac')
    done = host.run(HERE / "datastore.sh", {**DATASTORE, "NODES": ""})
    assert done.returncode == 1
    assert "a0: calico: the network settings were rejected: IPPool(netv) CIDR overlaps" in done.stderr


def test_a_datastore_that_does_not_answer_does_not_keep_the_lab(host: PretendHost) -> None:
    calicoctl(host, "exit 1")
    done = host.run(HERE / "remove-datastore.sh", DATASTORE)
    assert done.returncode == 0
    for kind in ("ippool netv", "ipreservation services", "bgppeer route-reflectors"):
        assert f"a0: calico: {kind} stays in the datastore, which does not answer" in done.stderr


def test_ends_of_tunnels_give_their_addresses_back_before_the_pool_goes(host: PretendHost) -> None:
    nodes(host, "a0", reflectors="a0 192.168.7.1\na1 \n")
    assert host.run(HERE / "remove-datastore.sh", DATASTORE).returncode == 0
    calls = [call.removeprefix("calicoctl --allow-version-mismatch ") for call in host.calls]
    calls = [call for call in calls if call.startswith(("ipam", "patch", "delete"))]
    assert calls[:3] == [
        "ipam release --ip=192.168.7.1",
        'patch node a0 --patch={"spec":{"ipv4VXLANTunnelAddr":null}}',
        "delete --skip-not-exists ippool netv",
    ]


# ---- network policies


def test_hosts_are_told_with_their_ends_of_tunnels(host: PretendHost) -> None:
    nodes(host, "a0", reflectors="a0=192.168.7.1\na0=\n\na1=\na1=\n")
    variables = {"HOST": "a0", "HOSTS": "a0=172.16.6.44 a1=172.16.6.218", "HOST_LABEL": "host"}
    assert host.run(HERE / "hosts.sh", variables).returncode == 0
    sets = list(yaml.safe_load_all((host.root / "applied").read_text()))
    assert [one["metadata"]["labels"] for one in sets] == [{"host": "a0"}, {"host": "a1"}]
    assert [one["spec"]["nets"] for one in sets] == [
        ["172.16.6.44/32", "192.168.7.1/32"],
        ["172.16.6.218/32"],
    ]


def test_a_policy_that_is_not_taken_is_named(host: PretendHost) -> None:
    calicoctl(host, "echo unknown selector; exit 1")
    done = host.run(HERE / "policy.sh", {"HOST": "a0", "POLICY": "web"}, "kind: GlobalNetworkPolicy\n")
    assert done.returncode == 1
    assert done.stderr == "a0: calico: network policy web was rejected: unknown selector\n"


def test_a_policy_that_stays_is_an_error(host: PretendHost) -> None:
    calicoctl(host)
    assert host.run(HERE / "remove-policy.sh", {"HOST": "a0", "POLICY": "web"}).returncode == 0
    assert host.calls == [
        "calicoctl --allow-version-mismatch delete --skip-not-exists globalnetworkpolicy web"
    ]
    calicoctl(host, "echo no quorum; exit 1")
    done = host.run(HERE / "remove-policy.sh", {"HOST": "a0", "POLICY": "web"})
    assert done.returncode == 1
    assert "network policy web stays in the datastore: no quorum" in done.stderr


def test_a_policy_in_a_tier_of_its_own_is_deleted_before_it(host: PretendHost) -> None:
    variables = {"HOST": "a0", "POLICY": "calico-lab.students"}
    calicoctl(host)
    assert host.run(HERE / "remove-policy.sh", variables).returncode == 0
    delete = "calicoctl --allow-version-mismatch delete --skip-not-exists"
    assert host.calls == [f"{delete} globalnetworkpolicy calico-lab.students", f"{delete} tier calico-lab"]
    calicoctl(host, '[[ $* == *globalnetworkpolicy* ]] || { echo "has other policies"; exit 1; }')
    done = host.run(HERE / "remove-policy.sh", variables)
    assert done.returncode == 1
    assert "policy calico-lab.students stays in the datastore: has other policies" in done.stderr


# ---- services


def test_services_are_started_and_enabled(host: PretendHost) -> None:
    host.program("systemctl", '[ "$1" != is-active ]')
    assert host.run(HERE / "services.sh", SERVICES).returncode == 0
    assert [call for call in host.calls if call.startswith("systemctl") and "is-active" not in call] == [
        "systemctl daemon-reload",
        f"systemctl enable --quiet {SERVICES['UNITS']}",
        "systemctl restart calico-lab-calico.target",
    ]
    templates = host.path("/etc/calico-lab/calico/confd/templates")
    assert templates.readlink() == host.path(f"{PROGRAMS}/confd/templates")


CONFIG = "/var/lib/calico-lab/components/calico/config"
USERS = "calico-lab-felix.service calico-lab-confd.service calico-lab-docker-driver.service"


@pytest.mark.parametrize(
    ("former", "active", "restarts"),
    [
        ("same former-members", True, USERS),
        ("same former-members", False, "calico-lab-calico.target"),
        ("other former-members", True, "calico-lab-calico.target"),
        ("other members", True, "calico-lab-calico.target"),
        ("", True, "calico-lab-calico.target"),
    ],
)
def test_other_members_of_etcd_restart_only_its_users(
    host: PretendHost, former: str, active: bool, restarts: str
) -> None:
    host.write(CONFIG, former)
    host.program("systemctl", "" if active else '[ "$1" != is-active ]')
    assert host.run(HERE / "services.sh", {**SERVICES, "CONFIG": "same members"}).returncode == 0
    assert [call for call in host.calls if " restart " in call] == [f"systemctl restart {restarts}"]


def test_settings_of_the_machine_are_remembered_once_and_put_back(host: PretendHost) -> None:
    host.program("sysctl", "echo net.ipv4.ip_forward = 0")
    kept = host.path("/var/lib/calico-lab/calico.sysctl")
    for _ in range(2):
        assert host.run(HERE / "services.sh", SERVICES).returncode == 0
        assert kept.read_text() == "net.ipv4.ip_forward = 0\n"
        host.program("sysctl", "echo net.ipv4.ip_forward = 1")
    assert host.run(HERE / "remove-services.sh", {**SERVICES, "CIDR": "192.168.0.0/16"}).returncode == 0
    assert f"sysctl -q -e -p {kept}" in host.calls
    assert not kept.exists()


@pytest.mark.parametrize(("kept", "asked"), [("calico.sysctl", "-e"), ("ebpf.sysctl", "-a")])
def test_settings_that_were_not_wholly_remembered_are_remembered_again(
    host: PretendHost, kept: str, asked: str
) -> None:
    ebpf = {**SERVICES, "DATAPLANE": "ebpf"}
    host.program("sysctl", f'[ "$1" != {asked} ] || kill -KILL $PPID')
    assert host.run(HERE / "services.sh", ebpf).returncode != 0
    host.program("sysctl", f"printf '{SYSCTL}'")
    assert host.run(HERE / "services.sh", ebpf).returncode == 0
    assert "net.ipv4.conf.all.rp_filter = 0" in host.path(f"/var/lib/calico-lab/{kept}").read_text()


# ---- dataplane


def test_felix_finds_its_programs_and_the_machine_is_remembered_as_it_was(host: PretendHost) -> None:
    host.program("sysctl", f"printf '{SYSCTL}'")
    host.program("mountpoint", "exit 1")
    for _ in range(2):
        assert host.run(HERE / "services.sh", {**SERVICES, "DATAPLANE": "ebpf"}).returncode == 0
        host.program("sysctl", "echo net.ipv4.conf.eth0.accept_local = 1")
        host.program("mountpoint", "")
    objects = host.path("/usr/lib/calico/bpf")
    assert objects.readlink() == host.path(f"{PROGRAMS}/bpf")
    kept = host.path("/var/lib/calico-lab/ebpf.sysctl").read_text().splitlines()
    assert kept == [line for line in SYSCTL.splitlines() if ".cali" not in line]
    assert host.path("/var/lib/calico-lab/ebpf.mounted").exists(), "what was not mounted before is unmounted"


def test_back_with_iptables_felix_stops_before_its_programs_go(host: PretendHost) -> None:
    host.program("sysctl", f"printf '{SYSCTL}'")
    ebpf = {**SERVICES, "DATAPLANE": "ebpf"}
    assert host.run(HERE / "services.sh", ebpf).returncode == 0
    host.write("/sys/fs/bpf/tc/globals/cali_v4_ct4", "")
    host.write("/sys/fs/bpf/tc/globals/somebody_elses", "")
    host.program("ip", "echo '3: eth0@if27: <UP>'")
    assert host.run(HERE / "services.sh", SERVICES).returncode == 0
    order = ["systemctl stop calico-lab-felix.service", "tc filter show dev eth0 ingress"]
    order += [f"sysctl -q -e -p {host.path('/var/lib/calico-lab/ebpf.sysctl')}"]
    places = [host.calls.index(call) for call in order]
    places.append(len(host.calls) - 1 - host.calls[::-1].index("systemctl restart calico-lab-calico.target"))
    assert places == sorted(places)
    assert not host.path("/usr/lib/calico").exists()
    assert [pin.name for pin in host.path("/sys/fs/bpf/tc/globals").iterdir()] == ["somebody_elses"]
    assert not list(host.path("/var/lib/calico-lab").glob("ebpf.*"))
    assert not [call for call in host.calls if call.startswith("umount")], "it was there before"


def test_only_felix_programs_are_taken_off(host: PretendHost) -> None:
    felix = "filter protocol all pref 49152 bpf chain 0 handle 0x1 cali_tc_preambl:[7] name cali_tc_preambl"
    other = "filter protocol all pref 10 bpf chain 0 handle 0x1 mine.o:[8] name mine"
    gone = f'grep -q "filter delete dev $4 $5" "{host.root}/calls"'
    host.program("ip", "printf '2: eth0@if27: <UP>\\n3: eth1: <UP>\\n4: eth2: <UP>\\n'")
    host.program(
        "tc",
        f"""case "$*" in
        "filter show dev eth0 "*) {gone} || echo '{felix}' ;;
        "filter show dev eth1 ingress") {gone} || echo '{felix}'; echo '{other}' ;;
        "filter show dev eth2 ingress") echo '{other}' ;;
        esac""",
    )
    assert host.run(HERE / "detach-programs.sh", {}).returncode == 0
    assert [call for call in host.calls if " delete " in call] == [
        "tc filter delete dev eth0 ingress pref 49152",
        "tc filter delete dev eth0 egress pref 49152",
        "tc qdisc delete dev eth0 clsact",
        "tc filter delete dev eth1 ingress pref 49152",
    ]


# ---- gate


class _Ready(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readiness" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _NotReady(_Ready):
    status = 503


def serve(handler: type[_Ready]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def ready() -> Iterator[int]:
    yield from serve(_Ready)


@pytest.fixture
def not_ready() -> Iterator[int]:
    yield from serve(_NotReady)


GATE = {
    "HOST": "a0",
    "PEERS": "a1=127.0.0.1 a2=172.16.6.231",
    "SESSION": "Mesh",
    "WIREGUARD": "",
    "SECONDS_ALLOWED": "0",
}
SESSIONS = """cat <<'END'
BIRD 2.17.6 ready.
Name       Proto      Table      State  Since         Info
kernel1    Kernel     master4    up     10:00:00.113
Mesh_127_0_0_1 BGP        ---        {first}
Mesh_172_16_6_231 BGP        ---        up     10:00:02.224  Established
END"""


def gate(host: PretendHost, felix: int, driver: int, **variables: str) -> tuple[int, str]:
    instead = {"is_ready 9099": f"is_ready {felix}", "is_ready 9101": f"is_ready {driver}"}
    done = host.run(HERE / "ready.sh", {**GATE, **variables}, instead=instead)
    return done.returncode, done.stderr


def test_the_gate_opens_when_all_is_there(host: PretendHost, ready: int) -> None:
    host.program("birdc", SESSIONS.format(first="up     10:00:01    Established"))
    assert gate(host, ready, ready) == (0, "")


def test_the_gate_waits_for_the_last_session(host: PretendHost, ready: int) -> None:
    early, late = (SESSIONS.format(first=text) for text in ("start  10:00:01    Connect", "up x Established"))
    host.program(
        "birdc", f'if [ "$(grep -c birdc "{host.root}/calls")" -lt 4 ]; then\n{early}\nelse\n{late}\nfi'
    )
    assert gate(host, ready, ready, SECONDS_ALLOWED="30") == (0, "")
    assert len([call for call in host.calls if call.startswith("birdc")]) >= 4


def test_a_session_with_a_route_reflector_is_one(host: PretendHost, ready: int) -> None:
    sessions = SESSIONS.format(first="up     10:00:01    Established")
    host.program("birdc", sessions.replace("Mesh_", "Node_"))
    assert gate(host, ready, ready, SESSION="Node") == (0, "")
    # Sessions of a mesh that is about to end are none.
    assert gate(host, ready, ready)[0] == 1


def wireguard(host: PretendHost) -> None:
    """Have Felix give its interface the address that Calico has for it, from the third time on."""
    allocates = f'grep -c "^calico-node .*-run-once" "{host.root}/calls"'
    address = "5: wireguard.cali    inet 192.168.7.1/32 scope global wireguard.cali"
    host.program("birdc", SESSIONS.format(first="up     10:00:01    Established"))
    host.program(
        "ip",
        f"""[ "$*" = '-o -4 address show dev wireguard.cali' ] || exit 0
        [ "$({allocates})" -lt 3 ] || echo '{address}'""",
    )
    host.write(
        f"{PROGRAMS}/bin/calico-node",
        f'#!/bin/bash\necho "calico-node $NODENAME $*" >>"{host.root}/calls"\n[ "$({allocates})" -ge 3 ]\n',
    )
    host.path(f"{PROGRAMS}/bin/calico-node").chmod(0o755)


def test_an_end_of_wireguard_has_its_address_when_the_gate_opens(host: PretendHost, ready: int) -> None:
    wireguard(host)
    assert gate(host, ready, ready, WIREGUARD="yes", SECONDS_ALLOWED="30") == (0, "")
    asked = [call for call in host.calls if call.startswith("calico-node")]
    assert asked == ["calico-node a0 -allocate-tunnel-addrs -allocate-tunnel-addrs-run-once"] * 3


def test_an_end_of_wireguard_without_address_is_named(host: PretendHost, ready: int) -> None:
    wireguard(host)
    status, said = gate(host, ready, ready, WIREGUARD="yes")
    assert status == 1
    assert "wireguard.cali has no address" in said
    assert "next: 'journalctl -u calico-lab-felix' on a0" in said


def test_an_address_is_not_taken_twice_at_once(host: PretendHost, ready: int) -> None:
    # The start of the services takes one too, and each would give back what the other has.
    wireguard(host)
    host.program("systemctl", '[ "$1" != is-active ] || exit 3; echo activating')
    assert gate(host, ready, ready, WIREGUARD="yes")[0] == 1
    assert not [call for call in host.calls if call.startswith("calico-node")]


def test_a_host_without_peers_needs_no_session(host: PretendHost, ready: int) -> None:
    assert gate(host, ready, ready, PEERS="") == (0, "")


@pytest.mark.parametrize("which", ["calico-lab-felix", "calico-lab-docker-driver"])
def test_a_service_that_is_not_ready_is_named(
    host: PretendHost, ready: int, not_ready: int, which: str
) -> None:
    host.program("birdc", SESSIONS.format(first="up     10:00:01    Established"))
    host.program("systemctl", '[ "$1" != show ] || echo activating')
    host.program("journalctl", "echo its last words")
    ports = (not_ready, ready) if which == "calico-lab-felix" else (ready, not_ready)
    status, said = gate(host, *ports)
    assert status == 1
    assert said.startswith("a0: calico: the network is not ready after 0 s\n")
    assert f"{which} is activating; its last log lines:\nits last words\n" in said
    assert f"next: 'journalctl -u {which}' on a0" in said


def test_a_service_that_does_not_answer_is_not_ready(host: PretendHost, ready: int) -> None:
    host.program("birdc", SESSIONS.format(first="up     10:00:01    Established"))
    assert "calico-lab-felix is " in gate(host, 1, ready)[1]


def test_a_start_that_failed_is_named(host: PretendHost, ready: int) -> None:
    host.program("birdc", SESSIONS.format(first="up     10:00:01    Established"))
    host.program("systemctl", '[ "$1" != is-active ] || exit 3; echo failed')
    assert "calico-lab-calico-startup is failed" in gate(host, ready, ready)[1]


def test_a_missing_session_says_its_state(host: PretendHost, ready: int) -> None:
    host.program(
        "birdc", SESSIONS.format(first="start  10:00:01    Active        Socket: Connection refused")
    )
    host.program("journalctl", "echo its last words")
    status, said = gate(host, ready, ready)
    assert status == 1
    assert "last log lines of BIRD and confd on a0:\nits last words\n" in said
    assert "no BGP session with a1 (127.0.0.1):   start 10:00:01 Active Socket: Connection refused" in said
    assert "a2" not in said


def test_bird_that_does_not_answer_has_no_session(host: PretendHost, ready: int) -> None:
    host.program("birdc", "exit 1")
    status, said = gate(host, ready, ready)
    assert status == 1
    assert "no BGP session with a1 (127.0.0.1): BIRD does not know this peer yet" in said


# ---- removal

REMOVAL = {**SERVICES, "CIDR": "192.168.0.0/16"}


@pytest.mark.parametrize("case", sorted((CASES / "rules").glob("*.before")), ids=lambda path: path.stem)
def test_only_calicos_rules_go(host: PretendHost, case: Path) -> None:
    host.program("iptables-save", f'[ "$2" != filter ] || cat "{case}"')
    host.program("iptables-restore", f'cat >>"{host.root}/restored"')
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    assert (host.root / "restored").read_text() == case.with_suffix(".after").read_text()
    assert {call for call in host.calls if "restore" in call} == {
        "iptables-restore --noflush",
        "ip6tables-restore --noflush",
    }


@pytest.mark.parametrize(
    ("node", "deleted"), [("10.0.0.1/24", True), ("10.0.0.1", True), ("10.0.0.10/24", False), ("", True)]
)
def test_the_node_goes_that_is_this_host_and_not_another_of_its_name(
    host: PretendHost, node: str, deleted: bool
) -> None:
    calicoctl(host, f'[ "$2" != get ] || echo "{node}"')
    host.write("/etc/calico-lab/calico/calico.env", "IP=10.0.0.1\n")
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    assert any("delete --skip-not-exists node" in call for call in host.calls) is deleted


def test_only_calicos_interfaces_and_sets_go(host: PretendHost) -> None:
    links = ["1: lo:", "2: eth0@if9:", "3: cali0123456789a@if3:", "4: vxlan.calico:"]
    links += ["5: calibre0:", "6: br-calico-lab:", "7: wireguard.cali:"]
    shown = " ".join(f"'{link} <UP> mtu 1500'" for link in links)
    host.program("ip", f"[ \"$*\" != '-o link show' ] || printf '%s\\n' {shown}")
    host.program("ipset", "[ \"$1\" != list ] || printf '%s\\n' mine cali40all-ipam-pools cali60this-host")
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    assert [call for call in host.calls if "link delete" in call] == [
        "ip link delete cali0123456789a",
        "ip link delete vxlan.calico",
        "ip link delete wireguard.cali",
    ]
    assert [call for call in host.calls if "ipset destroy" in call] == [
        "ipset destroy cali40all-ipam-pools",
        "ipset destroy cali60this-host",
    ]


def test_only_the_labs_routes_go(host: PretendHost) -> None:
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    # What libvirt, another link or the owner has within the network's addresses is of another protocol.
    assert [call for call in host.calls if call.startswith("ip route flush")] == [
        "ip route flush root 192.168.0.0/16 proto bird",
        "ip route flush root 192.168.0.0/16 proto 80",
        "ip route flush type unreachable proto kernel metric 65535",
    ]


def test_what_steers_packets_into_wireguard_goes_with_it(host: PretendHost) -> None:
    rule = "99:\\tnot from all fwmark 0x100000/0x100000 lookup 1"
    host.program("ip", f"case \"$*\" in 'rule show priority 99') printf '{rule}\\n' ;; esac")
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    assert "ip route flush table 1" in host.calls
    assert "ip rule delete priority 99" in host.calls
    host.program("ip", "case \"$*\" in 'link show wireguard.cali') exit 1 ;; esac")
    (host.root / "calls").unlink()
    assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
    assert not [call for call in host.calls if call.startswith("ip rule")], "somebody else's rule stays"


def test_removal_leaves_nothing_and_may_be_repeated(host: PretendHost) -> None:
    calicoctl(host)
    assert host.run(HERE / "services.sh", SERVICES).returncode == 0
    for left in ("/run/calico/bird.ctl", "/var/lib/calico/nodename", "/run/docker/plugins/calico.sock"):
        host.write(left, "")
    host.write("/var/lib/calico-lab/calico/bird/bird.cfg", "")
    for status in (0, 3):
        host.program("systemctl", f'[ "$1" != is-active ] || exit {status}; [ "$1" != kill ]')
        assert host.run(HERE / "remove-services.sh", REMOVAL).returncode == 0
        assert list(host.path("/var/lib/calico-lab").iterdir()) == []
        for folder in ("/run/calico", "/var/lib/calico"):
            assert not host.path(folder).exists()
        assert list(host.path("/run/docker/plugins").iterdir()) == []
    assert host.calls.count("calicoctl --allow-version-mismatch delete --skip-not-exists node a0") == 1


@pytest.mark.parametrize("missing", [["calico.env"], ["environment.sh", "remove-ebpf.sh"]])
def test_remove_services_without_its_files(host: PretendHost, missing: list[str]) -> None:
    calicoctl(host)
    for name in missing:
        host.path(f"/etc/calico-lab/calico/{name}").unlink()
    done = host.run(HERE / "remove-services.sh", REMOVAL)
    assert done.returncode == 0
    assert "a0: calico: its node stays in etcd: " in done.stderr
    assert ("remove-ebpf.sh is missing" in done.stderr) == ("remove-ebpf.sh" in missing)
    assert "ip route flush root 192.168.0.0/16 proto bird" in host.calls


# ---- removal of the Docker network


@pytest.mark.parametrize(
    ("running", "refused"),
    [
        ("", ""),
        ("calico-lab-sshbox lab\\n", ""),
        ("calico-lab-sshbox lab\\nmine \\nhers \\n", "mine hers"),
    ],
)
def test_a_network_is_not_taken_from_under_containers_of_others(
    host: PretendHost, running: str, refused: str
) -> None:
    host.program("docker", f"printf '{running}'")
    done = host.run(HERE / "attached.sh", {"HOST": "a1", "NETWORK": "netv"})
    assert (done.returncode, bool(done.stderr)) == ((1, True) if refused else (0, False))
    if refused:
        assert f"a1: containers that are not the lab's run on netv: {refused}." in done.stderr
        assert f"docker rm --force {refused})" in done.stderr


# ---- the Docker network


POOL = "netv: 192.168.0.0/16 in blocks of /26"
NETWORK = {"HOST": "a0", "NAME": "netv", "STACK": "lab", "POOL": POOL, "CIDR": "192.168.0.0/16", "MTU": ""}
CREATE = (
    "docker network create --driver calico --ipam-driver calico-ipam --subnet 192.168.0.0/16 {}"
    f"--label calico-lab.pool={POOL} --label calico-lab.stack=lab netv"
)


@pytest.mark.parametrize(("mtu", "option"), [("", ""), ("1400", "--opt com.docker.network.driver.mtu=1400 ")])
def test_network_is_created(host: PretendHost, mtu: str, option: str) -> None:
    host.program("docker")
    done = host.run(HERE / "network.sh", {**NETWORK, "MTU": mtu})
    assert done.returncode == 0, done.stderr
    assert host.calls[-1] == CREATE.format(option)


def with_network_of(host: PretendHost, described: str) -> None:
    """Let the host have the network, of a stack, with an MTU, of a pool."""
    body = f'case "$*" in *" ls "*) echo 1a2b ;; *inspect*) echo "{described}" ;; esac'
    host.program("docker", body)


def test_network_as_described_is_kept(host: PretendHost) -> None:
    with_network_of(host, f"lab  {POOL}")
    done = host.run(HERE / "network.sh", NETWORK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [call for call in host.calls if "network rm" in call or "create" in call]


@pytest.mark.parametrize("described", [f"lab 1400 {POOL}", "lab  netv: 10.0.0.0/16 in blocks of /26"])
def test_network_that_an_interrupted_run_has_left_is_created_again(host: PretendHost, described: str) -> None:
    with_network_of(host, described)
    assert host.run(HERE / "network.sh", NETWORK).returncode == 0
    assert host.calls[-2:] == ["docker network rm netv", CREATE.format("")]


@pytest.mark.parametrize("described", ["  ", f"other  {POOL}"])
def test_network_of_others_is_refused(host: PretendHost, described: str) -> None:
    with_network_of(host, described)
    done = host.run(HERE / "network.sh", NETWORK)
    assert done.returncode == 1
    assert (
        "another network is called netv; if it is not needed, run on a0: docker network rm netv"
        in done.stderr
    )
