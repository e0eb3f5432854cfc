"""`lab trace` on the running lab: the hops of open paths, and the place where a packet is lost."""

from collections.abc import Iterator

import pytest

from bench.guests import Guest
from components.hosts import remote
from tests.live.program import Program
from tests.live.tracing import facts, finds_the_policy_that_drops, lab_trace, name, way
from tests.live.waiting import eventually
from workspace.outputs import Outputs

BIRDC = "birdc -s /run/calico/bird.ctl"


@pytest.fixture(autouse=True)
def _nothing_is_left_on_the_hosts(outputs: Outputs) -> Iterator[None]:
    yield
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    for host, answer in remote.ask(ssh, "nft list tables", {}).items():
        assert "calico-lab-trace" not in answer.text, host


def test_trace_across_hosts(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    a0, a1 = (guest[host] for host in list(outputs.hosts)[:2])
    told = lab_trace(program, name(a0), a1.address)
    assert way(told) == [
        ("container", name(a0)),
        ("cali", a0.host),
        ("route", a0.host),
        ("felix", a0.host),
        ("wire", a0.host),
        ("arrival", a1.host),
        ("felix", a1.host),
        ("into", name(a1)),
        ("answer", name(a1)),
    ]
    container, cali, route = facts(told, "container"), facts(told, "cali"), facts(told, "route")
    assert container["address"] == f"{a0.address}/32"
    assert container["next hop"].startswith("169.254.1.1 has ee:ee:ee:ee:ee:ee ")
    assert container["sent"] == "icmp: 3 of 3 answered"
    assert cali["proxy ARP"] == "on"
    assert cali["pair"].endswith("each names the other")
    # What the host itself says of the same things.
    ssh = outputs.ssh[a0.host]
    own = remote.run(ssh, f"ip -oneline route show {a0.address}").text
    assert f" dev {told['hops'][1]['what'].removeprefix('interface ')} " in own
    known = remote.run(ssh, f"ip -oneline route get {a1.address}").text
    assert f" via {outputs.hosts[a1.host]} " in known
    assert f"via {outputs.hosts[a1.host]} dev eth0 proto bird" in route["route"]
    assert route["from"].startswith(f"BIRD, by BGP from {a1.host}: Established since ")
    assert facts(told, "felix")["allowed by"] == f"profile {outputs.network}"
    assert facts(told, "wire")["encapsulation"].startswith("none")


def test_trace_tcp(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    sender, server = (guest[host] for host in list(outputs.hosts)[:2])
    told = lab_trace(program, name(sender), name(server), "tcp/5001")
    assert told["outcome"] == "Connection refused", "nothing listens there: that is an answer, and no loss"
    server.run(f"setsid timeout 100 nc -l -k {server.address} 5001 >/dev/null 2>&1 &")
    told = lab_trace(program, name(sender), name(server), "tcp/5001")
    assert told["outcome"] == "connected"
    assert "SYN ACK" in facts(told, "answer")[server.host]


def test_trace_on_one_host(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    one = guest[next(iter(outputs.hosts))]
    told = lab_trace(program, name(one), "sshbox", "tcp/22")
    sshbox = f"{one.host}/calico-lab-sshbox"
    assert [kind for kind, _ in way(told)] == [
        "container",
        "cali",
        "route",
        "felix",
        "felix",
        "into",
        "answer",
    ]
    assert way(told)[-1] == ("answer", sshbox)
    assert told["outcome"] == "connected"


def test_trace_to_hosts(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    own, other = list(outputs.hosts)[:2]
    told = lab_trace(program, name(guest[own]), own, "tcp/22")
    assert way(told)[-2:] == [("host", own), ("answer", own)]
    told = lab_trace(program, name(guest[own]), other, "tcp/22")
    assert way(told)[-3:] == [("arrival", other), ("host", other), ("answer", other)]
    assert facts(told, "wire")["source"].startswith(f"{outputs.hosts[own]} in the place of ")


def test_trace_to_an_unused_address(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    one = guest[next(iter(outputs.hosts))]
    told = lab_trace(program, name(one), "192.168.255.254")
    assert way(told)[-1] == ("route", one.host)
    assert "no container of the lab has 192.168.255.254" in told["finding"]["what"]


@pytest.mark.parametrize(("direction", "place"), [("Ingress", 1), ("Egress", 0)], ids=["there", "here"])
def test_trace_dropped_by_policy(
    direction: str, place: int, outputs: Outputs, program: Program, guest: dict[str, Guest]
) -> None:
    ends = [guest[host] for host in list(outputs.hosts)[:2]]
    finds_the_policy_that_drops(outputs, program, ends, direction, at=ends[place])


def test_trace_bgp_session_down(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    here, there = list(outputs.hosts)[:2]
    mesh = f"Mesh_{outputs.hosts[there].replace('.', '_')}"
    assert remote.run(outputs.ssh[here], f"{BIRDC} disable {mesh}").status == 0
    try:
        told = lab_trace(program, name(guest[here]), name(guest[there]))
    finally:
        assert remote.run(outputs.ssh[here], f"{BIRDC} enable {mesh}").status == 0
    assert way(told)[-1] == ("route", here)
    assert facts(told, "route")["route"].startswith("unreachable ")
    assert told["finding"]["what"].endswith(f"because it has no BGP session with {there}: down")

    def open_() -> None:
        assert lab_trace(program, name(guest[here]), name(guest[there]))["arrived"]

    eventually(open_, seconds=30)


def test_trace_lost_on_the_wire(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    here, there = list(outputs.hosts)[:2]
    chain = "chain in { type filter hook ingress device eth0 priority 0; ip protocol icmp drop; };"
    assert remote.run(outputs.ssh[there], f"nft 'table netdev lab-test {{ {chain} }}'").status == 0
    try:
        told = lab_trace(program, name(guest[here]), name(guest[there]))
    finally:
        assert remote.run(outputs.ssh[there], "nft delete table netdev lab-test").status == 0
    assert way(told)[-1] == ("arrival", there)
    assert told["finding"]["what"].startswith(f"the packet left {here} by eth0, and never arrived at {there}")


def test_trace_container_without_network(outputs: Outputs, program: Program, guest: dict[str, Guest]) -> None:
    host = next(iter(outputs.hosts))
    run = "docker run --detach --init --name lab-test-lone --network none --volume /usr:/usr:ro"
    started = remote.run(outputs.ssh[host], f"{run} calico-lab-guest sleep infinity")
    assert started.status == 0, started.error
    try:
        told = lab_trace(program, "lab-test-lone", name(guest[host]))
    finally:
        remote.run(outputs.ssh[host], "docker rm --force lab-test-lone")
    assert told["hops"] == []
    assert told["finding"]["where"] == f"{host}/lab-test-lone"
    assert f"is not on {outputs.network}" in told["finding"]["what"]
