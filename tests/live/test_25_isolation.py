"""Isolation of students: no packet from one to another, and every other flow as without it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.calico.isolation import POLICY
from components.hosts import remote
from tests.live import calico, isolation
from tests.live.crowd import Crowd, Reach, crowd
from tests.live.look import everywhere
from tests.live.policies import reaches
from tests.live.program import Program
from tests.live.tracing import lab_trace
from tests.live.waiting import eventually
from workspace.outputs import Outputs

FIRST_PACKETS = Path(__file__).with_name("first-packets.sh").read_text()
STUDENT = f"org.projectcalico.label.{isolation.TEAMS['ada']}"
PROXY = "a2"
# A policy that opens students to everybody must not open them to each other; one that closes them to pings
# has to close them.
OPEN = {
    "network.policies.students-open": {
        "appliesTo": "calico-lab.role == 'student'",
        "ingress": [{"action": "allow"}],
        "egress": [{"action": "allow"}],
    }
}
QUIET = {
    "network.policies.students-quiet": {
        "appliesTo": "calico-lab.role == 'student'",
        "ingress": [{"action": "deny", "protocol": "icmp"}, {"action": "allow"}],
    }
}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def people(outputs: Outputs) -> Iterator[Crowd]:
    """Two students and another container on each host, which listen where a Jupyter server does too."""
    with crowd(outputs, isolation.TEAMS) as running:
        for name in running.addresses:
            host = name.partition("-")[2]
            server = f"docker exec --detach {name} nc -l -k {isolation.PORT}"
            assert remote.run(outputs.ssh[host], server).status == 0
        eventually(lambda: reaches(running, running.everything), seconds=20)
        yield running


@pytest.fixture(scope="module", autouse=True)
def isolated(outputs: Outputs, people: Crowd) -> Iterator[None]:
    """Students are isolated; before and after that everybody reaches everybody."""
    with isolation.isolated(outputs, PROXY):
        eventually(lambda: reaches(people, isolation.allowed(people)), seconds=20)
        yield
    eventually(lambda: reaches(people, people.everything), seconds=20)
    assert POLICY not in calico.names(outputs, "globalnetworkpolicy")
    assert "calico-lab" not in calico.names(outputs, "tier")


def connects(outputs: Outputs, sender: str, address: str, port: int) -> bool:
    """Whether TCP from a host, or from a container as `<name>-<host>`, is answered."""
    _, _, on = sender.partition("-")
    inside = f"docker exec {sender} " if on else ""
    script = f"{inside}nc -z -w 2 {address} {port} </dev/null"
    return remote.run(outputs.ssh[on or sender], script, seconds=10).status == 0


def test_students_reach_services_and_the_outside(outputs: Outputs, people: Crowd) -> None:
    wanted = {
        "original notebook": ("192.168.0.100", 8888),
        "SSH box": ("192.168.0.101", 22),
        "proxy": (outputs.hosts[PROXY], 8888),
        "outside": ("172.16.6.66", 22),
    }
    students = [name for name in people.addresses if name.partition("-")[0] in isolation.STUDENTS]
    closed = [
        f"{student} to {what}"
        for student in students
        for what, (address, port) in wanted.items()
        if not connects(outputs, student, address, port)
    ]
    assert closed == []


def test_only_the_proxys_host_reaches_a_students_server(outputs: Outputs, people: Crowd) -> None:
    students = {name: one for name, one in people.addresses.items() if name.partition("-")[0] == "ada"}
    for name, address in students.items():
        own = name.partition("-")[2]
        senders = {sender for sender in (*outputs.hosts, "web-a0", "web-a2", "ben-a0") if sender != own}
        # Felix applies no policy between a host and its own containers.
        reaching = {one for one in senders if connects(outputs, one, address, isolation.PORT)}
        assert reaching == {PROXY} - {own}, name
        assert connects(outputs, own, address, isolation.PORT)
    assert connects(outputs, "a0", people.addresses["web-a1"], isolation.PORT)


def test_students_stay_isolated_while_the_driver_restarts(outputs: Outputs, people: Crowd) -> None:
    """Containers that start send from their first moment, to students and to each other."""
    people.reach()
    targets = [people.addresses[name] for name in ("ada-a0", "ada-a1", "ada-a2")]
    variables = {
        host: {
            "NAME": f"new-{host}",
            "NETWORK": outputs.network,
            "LABEL": STUDENT,
            "TIMES": "6",
            "TARGETS": " ".join(targets),
        }
        for host in outputs.hosts
    }
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    with ThreadPoolExecutor(max_workers=1) as pool:
        starts = pool.submit(remote.ask, ssh, FIRST_PACKETS, variables, seconds=150)
        restarts = 0
        while not starts.done():
            everywhere(outputs, "systemctl restart calico-lab-docker-driver")
            restarts += 1
            reached = heard(people)
            assert reached <= isolation.allowed(people), reached - isolation.allowed(people)
    assert restarts > 1
    for host, answer in starts.result().items():
        assert answer.status == 0, f"{host}: {answer.error}"
        assert answer.text == "", f"a student on {host} reached others: {answer.text}"
    eventually(lambda: reaches(people, isolation.allowed(people)), seconds=20)


def heard(people: Crowd) -> Reach:
    """What came through, and nothing by UDP from a container that has just started."""
    found = people.reach()
    assert [flow for flow in found if flow[0].startswith("new-")] == []
    return found


def test_policies_of_the_config_keep_their_meaning(
    outputs: Outputs, people: Crowd, program: Program, tmp_path: Path
) -> None:
    everybody = isolation.allowed(people)
    quiet = frozenset(
        flow for flow in everybody if flow[2] != "ping" or flow[1].partition("-")[0] not in isolation.STUDENTS
    )

    def keeps(expected: Reach, policy: dict[str, Any]) -> None:
        program.up(program.changed_config(tmp_path, policy))
        eventually(lambda: reaches(people, expected), seconds=20)

    try:
        keeps(everybody, OPEN)
        keeps(quiet, QUIET)
    finally:
        program.up()
    # They have taken the hosts' addresses along.
    isolation.told(outputs)
    eventually(lambda: reaches(people, everybody), seconds=20)
    assert connects(outputs, PROXY, people.addresses["ada-a0"], isolation.PORT)


def test_trace_names_the_isolation(outputs: Outputs, program: Program) -> None:
    told = lab_trace(program, "a0/ada-a0", "a1/ben-a1", "tcp/5000")
    assert told["finding"]["where"] == "a0"
    assert told["finding"]["what"].endswith(f"dropped: policy {POLICY}")
    told = lab_trace(program, "a0/web-a0", "a1/ben-a1", f"tcp/{isolation.PORT}")
    assert told["finding"]["where"] == "a1"
    assert told["finding"]["what"].endswith(f"dropped: policy {POLICY}")
    assert lab_trace(program, "a0/ada-a0", "a1/web-a1", "tcp/5000")["arrived"]
