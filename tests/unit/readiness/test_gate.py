"""A gate: which hosts it asks, when it asks again, and what it says when the condition does not hold."""

import threading
from typing import Any

import pytest

from components.hosts.remote import Answer, HostError
from components.readiness import gate
from diagnosis import obstacle as obstacles
from diagnosis.obstacle import SshHost

HOSTS = {"a0": "172.16.6.44", "a1": "172.16.6.218", "a2": "172.16.6.231"}
PROPS: dict[str, Any] = {
    "script": "true",
    "checks": [
        {
            "host": "a0",
            "address": HOSTS["a0"],
            "variables": {"PEER": "a1"},
            "peers": {"a1": HOSTS["a1"]},
        },
        {
            "host": "a1",
            "address": HOSTS["a1"],
            "variables": {"PEER": "all"},
            "peers": {"a0": HOSTS["a0"], "a2": HOSTS["a2"]},
        },
    ],
    "ssh": {host: f"ssh {host}" for host in HOSTS},
    "port": 2380,
    "seconds": 60,
    "triggers": ["1"],
}
PROVIDER = gate.GateProvider()
Pairs = list[tuple[SshHost, SshHost, int]]
Calls = list[tuple[str, str, dict[str, str], float]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Pairs:
    """The connections that were asked for; a0 stops the one from a1."""
    pairs: Pairs = []

    def obstacle(source: SshHost, target: SshHost, port: int) -> str | None:
        pairs.append((source, target, port))
        return "a0 stops it" if (source.host, target.host) == ("a1", "a0") else None

    monkeypatch.setattr(obstacles, "obstacle", obstacle)
    return pairs


def answer(
    monkeypatch: pytest.MonkeyPatch, **answers: Answer
) -> list[tuple[str, str, dict[str, str], float]]:
    """Have hosts answer so, when all have been asked; return how they are asked."""
    calls: Calls = []
    together = threading.Barrier(len(PROPS["checks"]), timeout=10)

    def run(ssh: str, script: str, variables: dict[str, str], seconds: float) -> Answer:
        calls.append((ssh, script, variables, seconds))
        together.wait()
        return answers.get(ssh.removeprefix("ssh "), Answer(0, "", ""))

    monkeypatch.setattr(gate, "run", run)
    return calls


def failure(verb: str) -> list[str]:
    """Run a verb of the provider that fails; return the lines of its message."""
    with pytest.raises(HostError) as error:
        PROVIDER.create(PROPS) if verb == "create" else PROVIDER.update("id", PROPS, PROPS)
    return str(error.value).splitlines()


def test_gate_asks_all_hosts_at_once(monkeypatch: pytest.MonkeyPatch, asked: Pairs) -> None:
    calls = answer(monkeypatch)
    assert PROVIDER.create(PROPS).outs == PROPS
    assert sorted(call[:3] for call in calls) == [
        ("ssh a0", "true", {"PEER": "a1", "HOST": "a0", "SECONDS_ALLOWED": "60"}),
        ("ssh a1", "true", {"PEER": "all", "HOST": "a1", "SECONDS_ALLOWED": "60"}),
    ]
    assert all(seconds > 60 for *_, seconds in calls), "a script ends before it is ended"
    assert asked == []


def test_gate_takes_a_number_as_the_engine_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch)
    PROVIDER.create({**PROPS, "seconds": 60.0, "port": 2380.0})
    assert {call[2]["SECONDS_ALLOWED"] for call in calls} == {"60"}


@pytest.mark.parametrize("verb", ["create", "update"])
def test_gate_names_what_stops_the_connections_of_a_host_that_failed(
    verb: str, monkeypatch: pytest.MonkeyPatch, asked: Pairs
) -> None:
    answer(monkeypatch, a1=Answer(1, "", "a1: etcd: the member is not healthy after 60 s"))
    assert failure(verb) == ["a1: etcd: the member is not healthy after 60 s", "a0 stops it"]
    a0, a1, a2 = (SshHost(host, address, f"ssh {host}") for host, address in HOSTS.items())
    assert sorted(asked, key=str) == [(a0, a1, 2380), (a1, a0, 2380), (a1, a2, 2380), (a2, a1, 2380)]


def test_gate_has_the_messages_of_all_hosts_that_failed(
    monkeypatch: pytest.MonkeyPatch, asked: Pairs
) -> None:
    answer(monkeypatch, a0=Answer(1, "", "a0: not ready"), a1=Answer(1, "", "a1: not ready"))
    assert failure("create") == ["a0: not ready", "a0 stops it", "a1: not ready", "a0 stops it"]
    assert len(asked) == len(set(asked)) == 4, "each connection is tried once"


@pytest.mark.usefixtures("asked")
def test_gate_names_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, a0=Answer(255, "", "connection refused"))
    assert failure("create")[0] == "a0: connection refused"


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({}, False),
        ({"ssh": {host: f"ssh -F other {host}" for host in HOSTS}}, False),
        ({"script": "false"}, True),
        ({"triggers": ["2"]}, True),
        ({"seconds": 90}, True),
        ({"checks": PROPS["checks"][:1]}, True),
        ({"checks": [{**PROPS["checks"][0], "peers": {}}, PROPS["checks"][1]]}, True),
        ({"checks": [{**PROPS["checks"][0], "variables": {}}, PROPS["checks"][1]]}, True),
    ],
    ids=["nothing", "ssh", "script", "triggers", "seconds", "hosts", "peers", "variables"],
)
def test_gate_is_updated_when_its_condition_changes(changed: dict[str, Any], again: bool) -> None:
    assert PROVIDER.diff("id", PROPS, {**PROPS, **changed}).changes is again
