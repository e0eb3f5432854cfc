"""`dataplane: ebpf`: the lab with Felix' BPF programs, and back to iptables.

Network policies decide the same; packets of known connections bypass netfilter, connections outlive Felix,
SSH stays open, and no program, pin or setting is left afterwards.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.guests import Guest, guests
from components.hosts import remote
from tests.live import calico, chapters, connections, scene
from tests.live.crowd import Crowd, crowd
from tests.live.look import CONTAINERS, everywhere, healthy
from tests.live.policies import BY_HAND, SWITCHED, allowed, reaches
from tests.live.program import Program
from tests.live.tracing import facts, finds_the_policy_that_drops, lab_trace, name, way
from tests.live.waiting import eventually
from tests.live.wire import in_a_tunnel
from workspace.outputs import Outputs

EBPF = {"network.dataplane": "ebpf"}
BPF = "/opt/calico-lab/calico/bin/calico-node -bpf"
# What hangs on interfaces, what is pinned, how packets from elsewhere are taken, what Felix has in folders.
KERNEL = """\
for link in /sys/class/net/*; do tc qdisc show dev "${link##*/}" | grep clsact; done || true
grep -o ' /sys/fs/bpf bpf' /proc/mounts || true
find /sys/fs/bpf /usr/lib/calico /run/calico/bpf 2>/dev/null || true
sysctl -a -r 'conf.(all|eth0).(rp_filter|accept_local)$'
ls -d /var/lib/calico-lab/ebpf* 2>/dev/null || true
systemctl list-units --all --plain --no-legend 'calico-lab-bpffs*'
"""
WITHOUT_FILE_SYSTEM = """\
systemctl stop calico-lab-felix
umount /sys/fs/bpf
systemctl start calico-lab-felix
"""
PUBLISHED = 8082
# What the policies say of some: whether who sends reaches its target.
PINGS = [("blue-a0", "red-a1", False), ("red-a0", "blue-a1", True), ("green-a2", "red-a2", False)]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def before(outputs: Outputs) -> dict[str, tuple[str, str]]:
    """What runs on each host, and what its kernel has, with iptables."""
    running, kernel = everywhere(outputs, CONTAINERS), everywhere(outputs, KERNEL)
    return {host: (running[host], kernel[host]) for host in outputs.hosts}


@pytest.fixture(scope="module")
def config(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked config, but for the dataplane."""
    return program.changed_config(tmp_path_factory.mktemp("ebpf"), EBPF)


@pytest.fixture(scope="module", autouse=True)
def lab(
    outputs: Outputs, program: Program, config: Path, before: dict[str, tuple[str, str]]
) -> Iterator[Outputs]:
    """The lab with this dataplane; afterwards the tracked config again, also when a test fails."""
    told = program.pulumi("preview", "--non-interactive", "--color", "never", "--config-file", str(config))
    assert "the dataplane changes from iptables to ebpf: containers keep running" in told
    try:
        with guests(outputs, list(outputs.hosts), name="through") as guest:
            connections.connect(outputs, guest)
            program.up(config, seconds=180)
            connections.were_kept(guest)
        yield healthy(program)
    finally:
        program.up(seconds=180)


def no_ping_is_known(lab: Outputs) -> None:
    for host, known in everywhere(lab, f"{BPF} conntrack dump 2>/dev/null").items():
        assert not re.search(r"^ICMP .*192\.168\.", known, re.MULTILINE), host


@pytest.fixture(scope="module")
def people(lab: Outputs) -> Iterator[Crowd]:
    with crowd(lab) as running:
        yield running


def test_ebpf_containers_keep_running(lab: Outputs, before: dict[str, tuple[str, str]]) -> None:
    assert lab.dataplane == "ebpf"
    assert everywhere(lab, CONTAINERS) == {host: running for host, (running, _) in before.items()}


def test_ebpf_all_reach_all(people: Crowd) -> None:
    eventually(lambda: reaches(people, people.everything), seconds=20)


def test_ebpf_network_policies_enabled_and_removed(
    lab: Outputs, people: Crowd, program: Program, config: Path, tmp_path: Path
) -> None:
    program.up(program.changed_config(tmp_path, {**EBPF, **SWITCHED}))
    calico.apply(lab, BY_HAND)
    try:
        expected = {flow for flow in allowed(people) if flow[2] != "ping"}

        def exactly() -> None:
            assert {flow for flow in people.reach() if flow[2] != "ping"} == expected

        eventually(exactly, seconds=20)
        # Pings are one flow between two addresses, whoever asks: one at a time, when the last is forgotten.
        for sender, target, passes in PINGS:
            eventually(lambda: no_ping_is_known(lab), seconds=30, pause=1)
            host = sender.partition("-")[2]
            ping = f"docker exec {sender} ping -c 2 -i 0.2 -W 1 {people.addresses[target]}"
            answer = remote.run(lab.ssh[host], ping)
            assert ("2 received" in answer.text) is passes, f"{sender} to {target}: {answer}"
        healthy(program)
    finally:
        calico.calicoctl(lab, "delete --skip-not-exists networkpolicy green-hears-green -n libnetwork")
        program.up(config)
    eventually(lambda: reaches(people, people.everything), seconds=20)


def test_ebpf_known_connection_bypasses_netfilter(lab: Outputs, guest: dict[str, Guest]) -> None:
    one, other = list(guest.values())[:2]
    other.run(f"setsid timeout 200 nc -l -k {other.address} 5000 >/dev/null 2>&1 &")
    for host, peer in ((one.host, one), (other.host, other)):
        # Felix forgets a closed connection after half a minute.
        one.run(f"for _ in $(seq 50); do nc -z -w 2 {other.address} 5000 && exit; sleep 0.1; done; exit 1")
        one.run(f"ping -q -c 20 -i 0.01 {other.address}")
        tracked = remote.run(lab.ssh[host], f"conntrack -L -s {one.address} -d {other.address} 2>/dev/null")
        assert tracked.text == "", "netfilter has seen it"
        known = remote.run(lab.ssh[host], f"{BPF} conntrack dump 2>/dev/null")
        assert re.search(rf"TCP .*{one.address}:\d+ -> {other.address}:5000", known.text), known.text
        link = remote.run(lab.ssh[host], f"ip -o route get {peer.address} | grep -o 'cali[0-9a-f]*'").text
        hung = remote.run(lab.ssh[host], f"tc filter show dev {link.strip()} ingress")
        assert "cali_tc_preambl" in hung.text


def test_ebpf_published_port_and_outgoing(lab: Outputs, guest: dict[str, Guest]) -> None:
    host, name = "a1", "lab-test-published"
    server = (
        f"docker run --detach --init --name {name} --network {lab.network} --publish {PUBLISHED}:{PUBLISHED}"
        f" --volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro calico-lab-guest"
        f" nc -l -k 0.0.0.0 {PUBLISHED}"
    )
    try:
        started = remote.run(lab.ssh[host], server)
        assert started.status == 0, started.error

        def answers() -> None:
            variables = {"TARGET": lab.hosts[host], "SOURCE": "", "PORTS": str(PUBLISHED)}
            for sender in ("visitor", "a0"):
                seen = remote.run(lab.ssh[sender], scene.FLOWS, variables)
                assert f"tcp/{PUBLISHED} open" in seen.text, f"{sender}: {seen}"

        eventually(answers, seconds=20)
    finally:
        remote.run(lab.ssh[host], f"docker rm --force {name}")
    # A machine outside the lab knows no address of a container: it answers the host's.
    assert "2 received" in guest["a0"].run("ping -c 2 -i 0.2 -W 2 172.16.6.66")


def test_ebpf_connections_outlive_killed_services(lab: Outputs, guest: dict[str, Guest]) -> None:
    connections.connect(lab, guest)
    for damage in (
        "systemctl kill --kill-who=main --signal=KILL calico-lab-felix",
        "systemctl kill --kill-who=main --signal=KILL calico-lab-docker-driver",
        "systemctl kill --kill-who=main --signal=KILL docker",
        "systemctl restart calico-lab-calico.target",
    ):
        everywhere(lab, damage)
        connections.were_kept(guest)


def test_ebpf_host_recovers_lost_maps(lab: Outputs, program: Program) -> None:
    """Such programs drop every packet, and Felix needs packets to replace them."""
    host = next(iter(lab.hosts))
    done = remote.run(lab.ssh[host], WITHOUT_FILE_SYSTEM, seconds=60)
    assert done.status == 0, done.error

    def well() -> None:
        healthy(program)

    eventually(well, seconds=60, pause=1)


def test_ebpf_felix_health_port_is_local(lab: Outputs) -> None:
    for host, listeners in everywhere(lab, "ss -Htln | awk '{ print $4 }'").items():
        assert "127.0.0.1:10256" in listeners.split(), host
        assert not [one for one in listeners.split() if one.endswith(":10256") and "127.0.0.1" not in one]


def test_ebpf_trace_across_hosts(lab: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    one, other = list(guest.values())[:2]
    told = lab_trace(program, name(one), name(other), "tcp/5001")
    assert way(told) == [
        ("container", name(one)),
        ("cali", one.host),
        ("felix", one.host),
        ("route", one.host),
        ("wire", one.host),
        ("arrival", other.host),
        ("felix", other.host),
        ("into", name(other)),
        ("answer", name(other)),
    ]
    # What the host itself says of the same things.
    link = remote.run(
        lab.ssh[one.host], f"ip -o route get {one.address} | grep -o 'cali[0-9a-f]*'"
    ).text.strip()
    assert facts(told, "felix")["program"] == f"tc ingress of {link} → profile {lab.network}"
    assert facts(told, "arrival")["comes by"].startswith("eth0")
    assert "ACK RST" in facts(told, "answer")[one.host]
    # The program lets pass what it knows, and asks nobody. It forgets a ping after seconds, less than a trace
    # takes on a slow machine, so others go on meanwhile: the other way, which is the same flow, because a
    # trace takes the first request to its target for its own.
    other.run(f"ping -i 0.2 -w 100 {one.address} >/dev/null 2>&1 &")
    try:
        told = lab_trace(program, name(one), name(other))
    finally:
        other.run("pkill -x ping || true")
    assert {hop["facts"]["allowed by"] for hop in told["hops"] if hop["kind"] == "felix"} == {
        "a connection that it knows"
    }


def test_ebpf_trace_on_one_host_and_to_outside(
    lab: Outputs, program: Program, guest: dict[str, Guest]
) -> None:
    """Between two containers of one, to itself, and out of the lab: past netfilter, and through it."""
    host = next(iter(lab.hosts))
    sender = name(guest[host])
    assert [kind for kind, _ in way(lab_trace(program, sender, "sshbox", "tcp/22"))] == [
        "container", "cali", "felix", "route", "felix", "into", "answer",
    ]  # fmt: skip
    assert way(lab_trace(program, sender, host, "tcp/22"))[-2:] == [("host", host), ("answer", host)]
    told = lab_trace(program, sender, "172.16.6.66")
    assert told["arrived"]
    assert facts(told, "wire")["source"].startswith(f"{lab.hosts[host]} in the place of ")
    told = lab_trace(program, sender, "192.168.255.254")
    assert way(told)[-1] == ("route", host)
    assert "no container of the lab has 192.168.255.254" in told["finding"]["what"]


@pytest.mark.parametrize(("direction", "place"), [("Ingress", 1), ("Egress", 0)], ids=["there", "here"])
def test_ebpf_trace_dropped_by_policy(
    direction: str, place: int, lab: Outputs, program: Program, guest: dict[str, Guest]
) -> None:
    ends = [guest[host] for host in list(lab.hosts)[:2]]
    finds_the_policy_that_drops(lab, program, ends, direction, at=ends[place])


def test_ebpf_trace_leaves_nothing(lab: Outputs) -> None:
    folder = "/run/calico-lab-trace.captures"
    left = f"pgrep -l tcpdump; ls -d {folder}; nft list tables | grep calico-lab-trace; true"
    assert set(everywhere(lab, f"({left}) 2>/dev/null").values()) == {""}


def test_ebpf_chapter_commands(lab: Outputs, program: Program) -> None:
    [chapter] = [one for one in chapters.CHAPTERS if one.stem == "ebpf"]
    chapters.run(chapter, program)


def test_ebpf_vxlan(lab: Outputs, program: Program, tmp_path: Path) -> None:
    program.up(program.changed_config(tmp_path, {**EBPF, "network.encapsulation": "vxlan"}))
    healthy(program)
    with guests(lab, list(lab.hosts), name="tunnel") as guest:
        one, other = list(guest.values())[:2]
        assert " mtu 1450 " in one.run("ip link show cali0 2>/dev/null || ip link show eth0")
        eventually(lambda: in_a_tunnel(lab, one, other), seconds=20)
        told = lab_trace(program, name(one), name(other))
        assert told["arrived"]
        assert facts(told, "wire")["encapsulation"].startswith("VXLAN, by vxlan.calico")
        assert f"tunneled nh {lab.hosts[other.host]}" in facts(told, "route")["map"]
        assert facts(told, "arrival")["comes by"].startswith("vxlan.calico")
        # Segments as large as they may be have to come through as well.
        other.run(f"setsid sh -c 'nc -l {other.address} 5000 | wc -c >/tmp/size' >/dev/null 2>&1 &")
        one.run(
            f"head -c 4000000 /dev/zero >/tmp/zeros; for _ in $(seq 50); do "
            f"nc -N -w 5 {other.address} 5000 </tmp/zeros && exit; sleep 0.1; done; exit 1"
        )
        assert other.run("sleep 0.5; cat /tmp/size").strip() == "4000000"


def test_ebpf_back_to_iptables(
    lab: Outputs, program: Program, before: dict[str, tuple[str, str]], people: Crowd
) -> None:
    with guests(lab, list(lab.hosts), name="back") as guest:
        connections.connect(lab, guest)
        program.up(seconds=180)
        connections.were_kept(guest)
        eventually(lambda: reaches(people, people.everything), seconds=20)
    assert healthy(program).dataplane == "iptables"
    for host, text in everywhere(lab, KERNEL).items():
        assert text == before[host][1], host
