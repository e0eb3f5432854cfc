"""Containers are started and removed on all hosts while the driver, Docker and etcd are killed.

No address, endpoint or interface leaks. Everything random comes from `CALICO_LAB_CHURN_SEED`; a failure
prints its seed. `CALICO_LAB_CHURN_CONTAINERS` is the number of containers on each host.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from bench.guests import Guest
from components.hosts import remote
from diagnosis import status
from tests.live import agreement, churn, connections
from tests.live.agreement import History, HostFacts
from tests.live.churn import DRIVER, ENGINE, ETCD, Done, Trouble
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import Outputs

CONTAINERS = int(os.environ.get("CALICO_LAB_CHURN_CONTAINERS") or 36)
"""On each host."""
CHURN_SECONDS = 900
"""When a container hangs for good. Two processors that do nothing else need an eighth of it."""
KILL = Path(__file__).with_name("kill.sh").read_text()
START_STEADY = Path(__file__).with_name("steady.sh").read_text()
REMOVE = "docker ps --all --quiet --filter label=calico-lab.churn | xargs -r docker rm --force >/dev/null"
STEADY = "churn-steady"
STEADY_ADDRESSES = {0: "192.168.78.10", 1: "192.168.78.11", 2: "192.168.78.12"}
"""In one block, so that two of the hosts have an address out of another's block."""
SECONDS_WITHOUT_QUORUM = 8
MEND_SECONDS = 75 + 30 + 45
"""The driver keeps the address of a container that did not start for 75 s, in which it waits for etcd, and
30 s, in which an engine repeats a call. Then reconciliation looks twice, 10 s apart, and releases it."""

pytestmark = pytest.mark.timeout(CHURN_SECONDS + 120)


@dataclass
class Churn:
    """What happened."""

    seed: int
    done: list[Done] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    """Addresses that the kernels of two hosts had at the same time."""
    samples: int = 0
    history: History = field(default_factory=History)


def shell(outputs: Outputs, host: str, script: str, variables: dict[str, str] | None = None) -> str:
    answer = remote.run(outputs.ssh[host], script, variables, seconds=90)
    assert answer.status == 0, f"{host}: {answer.error or answer.text}"
    return answer.text


def cause(outputs: Outputs, trouble: Trouble) -> None:
    """Do the damage; systemd repairs it. Something that is down already stays so for the moment.

    Nothing else is killed until a container that was killed with its engine is back: Docker tries that once,
    and a driver that is killed in the very call loses it.
    """
    host = trouble.hosts[0]
    match trouble.kind:
        case "driver":
            remote.run(outputs.ssh[host], KILL, {"UNIT": DRIVER})
        case "etcd":
            remote.run(outputs.ssh[host], KILL, {"UNIT": ETCD})
        case "engine":
            remote.run(outputs.ssh[host], KILL, {"UNIT": ENGINE})
        case "engine and container":
            before = started(outputs, host)
            remote.run(outputs.ssh[host], KILL, {"UNIT": ENGINE, "CONTAINER": STEADY})
            eventually(lambda: came_back(outputs, host, before), seconds=60)
        case "quorum":
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda host: shell(outputs, host, f"systemctl stop {ETCD}"), trouble.hosts))
                time.sleep(SECONDS_WITHOUT_QUORUM)
                start = f"systemctl start --no-block {ETCD}"
                list(pool.map(lambda host: shell(outputs, host, start), trouble.hosts))


def started(outputs: Outputs, host: str) -> str:
    """When the container with a restart policy was last started, and whether it runs."""
    look = (
        "timeout 20 docker inspect --format '{{.State.StartedAt}} {{.State.Status}} {{.State.Error}}' "
        + STEADY
    )
    return remote.run(outputs.ssh[host], look).text.strip()


def came_back(outputs: Outputs, host: str, before: str) -> None:
    now = started(outputs, host)
    assert now != before, f"{host}: {STEADY} is not started again"
    assert now.split(" ")[1:] == ["running"], f"{host}: {STEADY}: {now}"


def sample(outputs: Outputs) -> dict[str, set[tuple[str, str]]]:
    """Addresses that the kernel of each host routes to a container, with the hosts and the interfaces."""
    script = "ip -4 -o route show | sed -nE 's/^([0-9.]+) dev (cali[^ ]*) .*/\\1 \\2/p'"
    answers = remote.ask({host: outputs.ssh[host] for host in outputs.hosts}, script, {})
    found: dict[str, set[tuple[str, str]]] = {}
    for host, answer in answers.items():
        for line in answer.text.splitlines():
            address, interface = line.split(" ")
            found.setdefault(address, set()).add((host, interface))
    return {address: holders for address, holders in found.items() if len(holders) > 1}


def watch(outputs: Outputs, record: Churn) -> None:
    """Look whether two kernels have one address; what is seen twice is no matter of when each was asked."""
    record.samples += 1
    if twice := sample(outputs):
        again = sample(outputs)
        record.shared += [f"{one}: {sorted(twice[one])}" for one in twice if again.get(one) == twice[one]]


@pytest.fixture(scope="module")
def connected(outputs: Outputs, guest: dict[str, Guest]) -> dict[str, Guest]:
    """A TCP connection from each host's guest to the guest of the next host."""
    connections.connect(outputs, guest)
    return guest


@pytest.fixture(scope="module")
def ran(outputs: Outputs, connected: dict[str, Guest]) -> Iterator[Churn]:
    """Everything happens here; the tests look at what has become of it."""
    seed = int(os.environ.get("CALICO_LAB_CHURN_SEED") or time.time_ns() % 100_000)
    print(f"CALICO_LAB_CHURN_SEED={seed}")
    random = Random(seed)  # noqa: S311 - to be repeatable is its purpose
    hosts = list(outputs.hosts)
    record = Churn(seed)
    try:
        for number, host in enumerate(hosts):
            variables = {"NAME": STEADY, "NETWORK": outputs.network, "ADDRESS": STEADY_ADDRESSES[number]}
            shell(outputs, host, START_STEADY, variables)
        revision, keys = agreement.keys_of(outputs)
        record.history.begin(keys)
        _run(outputs, random, record)
        for change in agreement.changes_since(outputs, revision):
            record.history.go_on(*change)
        print(_summary(record))
        yield record
    finally:
        remote.ask({host: outputs.ssh[host] for host in hosts}, REMOVE, {}, seconds=90)


def _run(outputs: Outputs, random: Random, record: Churn) -> None:
    hosts = list(outputs.hosts)
    plans = {host: churn.plan(random, host, CONTAINERS) for host in hosts}
    coming = churn.troubles(random, hosts)
    with ThreadPoolExecutor() as pool:
        workers = {
            host: pool.submit(
                remote.run,
                outputs.ssh[host],
                churn.WORK,
                {"PLAN": plans[host], "NETWORK": outputs.network},
                CHURN_SECONDS,
            )
            for host in hosts
        }
        next_trouble = next(coming)
        due = time.monotonic() + next_trouble.after
        while not all(worker.done() for worker in workers.values()):
            if time.monotonic() >= due:
                cause(outputs, next_trouble)
                record.troubles.append(next_trouble)
                next_trouble = next(coming)
                due = time.monotonic() + next_trouble.after
            watch(outputs, record)
            time.sleep(0.5)
        for host, worker in workers.items():
            answer = worker.result()
            assert answer.status == 0, f"{host}: {answer.error}"
            record.done += churn.read_done(host, answer.text)


def _summary(record: Churn) -> str:
    told = Counter(f"{one.verb}: {one.kind or 'unknown' if one.status else 'done'}" for one in record.done)
    killed = Counter(trouble.kind for trouble in record.troubles)
    took = (max(one.ended for one in record.done) - min(one.began for one in record.done)) / 1000
    return f"{took:.0f} s, {dict(told)}, killed {dict(killed)}, {record.history.stored} endpoints stored"


def settled(outputs: Outputs) -> dict[str, HostFacts]:
    """Wait until all agree again; return what the hosts have."""
    eventually(lambda: agreement.check(outputs), seconds=MEND_SECONDS, pause=1)
    return agreement.look(outputs)[1]


def test_churn_killed_every_kind(outputs: Outputs, ran: Churn) -> None:
    assert sum(one.verb in ("run", "once") for one in ran.done) == CONTAINERS * len(outputs.hosts)
    assert {trouble.kind for trouble in ran.troubles} == {
        "driver",
        "engine",
        "engine and container",
        "etcd",
        "quorum",
    }


def test_churn_errors_are_known(ran: Churn) -> None:
    failed = [one for one in ran.done if one.status]
    assert [one for one in failed if one.kind is None] == []
    assert len(failed) < len(ran.done) / 4, _summary(ran)


def test_churn_addresses_unique(ran: Churn) -> None:
    assert ran.history.stored > CONTAINERS
    assert ran.history.faults == []
    assert ran.samples > 10
    assert ran.shared == []


def test_churn_connections_kept(ran: Churn, connected: dict[str, Guest]) -> None:
    connections.were_kept(connected)


def test_churn_restarted_containers_keep_addresses(
    outputs: Outputs, ran: Churn, connected: dict[str, Guest]
) -> None:
    for number, host in enumerate(outputs.hosts):
        assert started(outputs, host).endswith(" running"), host
        for guest in connected.values():
            assert "1 received" in guest.run(f"ping -c 1 -W 2 {STEADY_ADDRESSES[number]}")


def test_churn_docker_calico_and_kernels_agree(outputs: Outputs, ran: Churn) -> None:
    facts = settled(outputs)
    for host, seen in facts.items():
        states = {name: state for name, state in seen.containers.items() if name.startswith("churn-")}
        assert set(states.values()) <= {"running", "exited", "created", "dead"}, f"{host}: {states}"
        # Docker calls dead what it was removing when it was killed; it can be removed again.
        broken_off = {one.container for one in ran.done if one.verb != "run" and one.status}
        assert {name for name, state in states.items() if state == "dead"} <= broken_off, host


def test_churn_labels_on_endpoints(outputs: Outputs, ran: Churn) -> None:
    datastore, _ = agreement.look(outputs)
    labels = {
        address: endpoint.labels.get("churn")
        for endpoint in datastore.endpoints.values()
        for address in endpoint.addresses
    }
    assert {labels.get(address) for address in STEADY_ADDRESSES.values()} == {"steady"}


def test_churn_containers_removable(outputs: Outputs, ran: Churn) -> None:
    for host in outputs.hosts:
        shell(outputs, host, REMOVE)
    facts = settled(outputs)
    for host, seen in facts.items():
        assert [name for name in seen.containers if name.startswith("churn-")] == [], host


def test_churn_lab_healthy(outputs: Outputs, program: Program, ran: Churn) -> None:
    def healthy() -> None:
        assert status.findings(status.look(outputs, program.stack)) == []

    eventually(healthy, seconds=60, pause=1)
