"""The gate of etcd: takes the steps, waits for members in between, and then for all of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from components.etcd import gate
from components.etcd.convergence import Lab, NotJoinedError
from components.hosts.remote import HostError

PROPS: dict[str, Any] = {
    "checks": [{"host": "a0"}, {"host": "a1"}],
    "ssh": {"a0": "ssh a0", "a1": "ssh a1", "a2": "ssh a2"},
    "settings": {
        "members": {"a0": "https://10.0.0.1:2380", "a1": "https://10.0.0.2:2380"},
        "asked": ["a0", "a1"],
        "peer_urls": {"a0": "https://10.0.0.1:2380", "a1": "https://10.0.0.2:2380"},
        # As the engine gives a number.
        "client_port": 2379.0,
        "token": "one",
        "identity": "1a2b",
    },
}


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The hosts that the gate has waited for, one list each time."""
    seen: list[list[str]] = []

    def wait(props: dict[str, Any]) -> dict[str, Any]:
        seen.append([check["host"] for check in props["checks"]])
        return props

    monkeypatch.setattr(gate, "wait", wait)
    return seen


def converging(monkeypatch: pytest.MonkeyPatch, *answers: tuple[str, ...] | Exception) -> list[Lab]:
    """Let each run of the convergence end so, the last one again and again; return the labs."""
    labs: list[Lab] = []
    rest: Iterator[tuple[str, ...] | Exception] = iter(answers)

    class Convergence:
        def __init__(self, lab: Lab) -> None:
            labs.append(lab)

        def run(self) -> tuple[str, ...]:
            answer = next(rest, answers[-1])
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(gate, "Convergence", Convergence)
    return labs


def test_gate_waits_for_all_when_the_steps_are_taken(
    monkeypatch: pytest.MonkeyPatch, waited: list[list[str]]
) -> None:
    labs = converging(monkeypatch, ())
    gate.MembersProvider().wait(PROPS)
    [lab] = labs
    assert waited == [["a0", "a1"]]
    assert lab.client_port == 2379
    assert dict(lab.ssh) == {"a0": "ssh a0", "a1": "ssh a1"}


def test_gate_waits_for_an_unhealthy_member_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, waited: list[list[str]]
) -> None:
    converging(monkeypatch, ("a1",), ())
    gate.MembersProvider().wait(PROPS)
    assert waited == [["a1"], ["a0", "a1"]]


def test_gate_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, waited: list[list[str]]) -> None:
    converging(monkeypatch, ("a1",))
    with pytest.raises(HostError, match="members that were healthy a moment ago are not: a1"):
        gate.MembersProvider().wait(PROPS)
    assert waited == [["a1"]] * gate.ROUNDS


def test_gate_names_what_stops_a_member_that_does_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    converging(monkeypatch, NotJoinedError("a1", "a1: etcd: the member has not joined"))
    monkeypatch.setattr(
        gate, "explained", lambda failed, _: f"{failed[0][0]}\na rule on {failed[0][1]['host']}"
    )
    with pytest.raises(HostError, match="a1: etcd: the member has not joined\na rule on a1"):
        gate.MembersProvider().wait(PROPS)
