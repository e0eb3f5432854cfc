"""Containers of others on the network: they refuse a deletion, and a host that does not answer has none."""

from typing import Any

import pytest

from components.calico import attached
from components.hosts import remote
from components.hosts.remote import Answer, HostError

PROPS: dict[str, Any] = {
    "script": "true",
    "network": "netv",
    "hosts": ["a0", "a1", "a2"],
    "ssh": {host: f"ssh {host}" for host in ("a0", "a1", "a2")},
}
PROVIDER = attached._AttachedProvider()


def answer(monkeypatch: pytest.MonkeyPatch, **answers: Answer) -> list[tuple[str, dict[str, str]]]:
    """Have hosts answer so; return how they are asked."""
    calls: list[tuple[str, dict[str, str]]] = []

    def run(ssh: str, _: str, variables: dict[str, str], __: float) -> Answer:
        calls.append((ssh, variables))
        return answers.get(ssh.removeprefix("ssh "), Answer(0, "", ""))

    monkeypatch.setattr(remote, "run", run)
    return calls


def test_attached_asks_every_host_at_deletion_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch)
    PROVIDER.create(PROPS)
    PROVIDER.update("id", PROPS, PROPS)
    assert calls == []
    PROVIDER.delete("id", PROPS)
    assert sorted(calls, key=str) == [
        (f"ssh {host}", {"HOST": host, "NETWORK": "netv"}) for host in PROPS["hosts"]
    ]


def test_attached_refuses_a_deletion_and_names_all_hosts_with_other_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, a0=Answer(1, "", "a0: mine"), a2=Answer(1, "", "a2: hers"))
    with pytest.raises(HostError) as error:
        PROVIDER.delete("id", PROPS)
    assert str(error.value).splitlines() == ["a0: mine", "a2: hers"]


def test_attached_passes_over_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, a1=Answer(255, "", "connection refused"), a2=Answer(124, "", "no answer within 30 s"))
    PROVIDER.delete("id", PROPS)


@pytest.mark.parametrize(
    ("changed", "updated"),
    [({}, False), ({"ssh": {}}, False), ({"hosts": ["a0"]}, True), ({"network": "other"}, True)],
    ids=["nothing", "ssh", "hosts", "network"],
)
def test_attached_is_updated_when_hosts_or_network_change(changed: dict[str, Any], updated: bool) -> None:
    assert PROVIDER.diff("id", PROPS, {**PROPS, **changed}).changes is updated
