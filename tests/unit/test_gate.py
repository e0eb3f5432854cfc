"""A gate: what it waits for, when it looks again, and what it says when the time is over."""

from typing import Any

import pytest

from components.hosts.remote import Answer, HostError
from components.readiness import gate
from diagnosis.obstacle import End

PROPS: dict[str, Any] = {
    "end": {"host": "a1", "address": "172.16.6.218", "ssh": "ssh a1"},
    "script": "true",
    "variables": {"HOST": "a1", "SECONDS_ALLOWED": "60"},
    "peers": [
        {"host": "a0", "address": "172.16.6.44", "ssh": "ssh a0"},
        {"host": "a2", "address": "172.16.6.231", "ssh": "ssh a2"},
    ],
    "port": 2380,
    "triggers": ["1"],
}
PROVIDER = gate._GateProvider()


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """The connections that were looked at; one of them is stopped."""
    looked: list[tuple[str, str, int]] = []

    def obstacle(source: End, target: End, port: int) -> str | None:
        looked.append((source.host, target.host, port))
        return "a0 stops it" if (source.host, target.host) == ("a1", "a0") else None

    monkeypatch.setattr(gate, "obstacle", obstacle)
    return looked


def answer(monkeypatch: pytest.MonkeyPatch, said: Answer) -> None:
    def run(ssh: str, script: str, variables: dict[str, str], seconds: float) -> Answer:
        assert (ssh, script, variables) == ("ssh a1", "true", PROPS["variables"])
        assert seconds > 60
        return said

    monkeypatch.setattr(gate, "run", run)


def test_a_condition_that_is_met(monkeypatch: pytest.MonkeyPatch, ways: list[tuple[str, str, int]]) -> None:
    answer(monkeypatch, Answer(0, "", ""))
    assert PROVIDER.create(PROPS).outs == PROPS
    assert ways == []


@pytest.mark.parametrize("verb", ["create", "update"])
def test_what_is_in_the_way_is_looked_for_in_both_directions(
    verb: str, monkeypatch: pytest.MonkeyPatch, ways: list[tuple[str, str, int]]
) -> None:
    answer(monkeypatch, Answer(1, "", "a1: etcd: the member is not healthy after 60 s"))
    monkeypatch.setattr("sys.tracebacklimit", 1000, raising=False)
    with pytest.raises(HostError) as error:
        PROVIDER.create(PROPS) if verb == "create" else PROVIDER.update("id", PROPS, PROPS)
    assert str(error.value).splitlines() == ["a1: etcd: the member is not healthy after 60 s", "a0 stops it"]
    assert sorted(ways) == [("a0", "a1", 2380), ("a1", "a0", 2380), ("a1", "a2", 2380), ("a2", "a1", 2380)]


@pytest.mark.usefixtures("ways")
def test_a_host_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Answer(255, "", "connection refused"))
    monkeypatch.setattr("sys.tracebacklimit", 1000, raising=False)
    with pytest.raises(HostError, match="a1: connection refused"):
        PROVIDER.create(PROPS)


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({}, False),
        ({"end": {**PROPS["end"], "ssh": "ssh -F other a1"}}, False),
        ({"script": "false"}, True),
        ({"triggers": ["2"]}, True),
        ({"peers": PROPS["peers"][:1]}, True),
    ],
)
def test_when_it_looks_again(changed: dict[str, Any], again: bool) -> None:
    assert PROVIDER.diff("id", PROPS, {**PROPS, **changed}).changes is again
