"""Leftovers: what is not in the state is found; another checkout's running lab is not touched."""

import base64
import hashlib
from typing import Any

import pytest

from workspace import leftovers
from workspace.leftovers import (
    ForeignLabError,
    Leftover,
    Unfinished,
    gone,
    not_in_state,
    operator_of,
    unfinished,
)

KEY = base64.b64encode(b"a public key").decode()
OWN = base64.b64encode(hashlib.sha256(b"a public key").digest()).decode().rstrip("=")
STATE: dict[str, Any] = {
    "deployment": {
        "resources": [
            {
                "urn": "urn:pulumi:lab::calico-lab::x::operator",
                "type": "x",
                "outputs": {"public_key": f"ssh-ed25519 {KEY}"},
            },
            {"urn": "urn:pulumi:lab::calico-lab::x::a0-container", "type": "x", "id": "known"},
        ]
    }
}


def container(id_: str, operator: str, *, running: bool = True) -> Leftover:
    return Leftover("container", id_, f"calico-lab-{id_}", operator, running)


def test_operator_of_a_state() -> None:
    assert operator_of(STATE) == OWN
    assert operator_of({}) is None
    assert operator_of({"deployment": {"resources": None}}) is None


def test_not_in_state_keeps_what_the_state_has() -> None:
    assert not_in_state(STATE, [container("known", OWN)]) == []


def test_not_in_state_finds_running_and_stopped_containers() -> None:
    left = [container("a1", OWN), container("a2", OWN, running=False), container("b", "other", running=False)]
    assert not_in_state(STATE, left) == left


def test_not_in_state_with_another_checkouts_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [Leftover("volume", id_, "calico-lab-a1", "other", running=False) for id_ in ("a1", "known")]
    for left in (container("a1", "other"), *volumes):
        monkeypatch.delenv("CALICO_LAB_TAKE_OVER", raising=False)
        with pytest.raises(ForeignLabError, match=r"calico-lab-a1.*make destroy.*CALICO_LAB_TAKE_OVER=1"):
            not_in_state(STATE, [left])
        monkeypatch.setenv("CALICO_LAB_TAKE_OVER", "1")
        assert not_in_state(STATE, [left]) == [left]


def made(id_: str, provider: str = "controller") -> dict[str, Any]:
    return {
        "urn": f"urn:{id_}",
        "type": "docker:index/container:Container",
        "id": id_,
        "provider": f"urn:pulumi:lab::calico-lab::pulumi:providers:docker::{provider}::id",
        "inputs": {"name": f"calico-lab-{id_}"},
    }


@pytest.mark.parametrize(
    ("there", "names"),
    [("a0\na1\n", []), ("a1\n", ["calico-lab-a0"]), ("", ["calico-lab-a0", "calico-lab-a1"])],
)
def test_gone_are_host_containers_that_the_engine_lacks(
    there: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_docker", lambda *_: there)
    state = {"deployment": {"resources": [made("a0"), made("a1"), made("sshbox", "a1-docker")]}}
    assert gone(state) == names


def test_gone_in_an_empty_state_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(leftovers, "_docker")
    assert gone({}) == []


OBJECT, NOTEBOOK = leftovers.ON_HOSTS
NAMED = {"docker_name": "calico-lab-x", "ssh": "ssh -F config ssh://root@10.0.0.2:22"}


@pytest.mark.parametrize(
    ("operation", "kind", "inputs", "removal"),
    [
        ("creating", OBJECT, {**NAMED, "kind": "container"}, ["rm", "--force"]),
        ("creating", OBJECT, {**NAMED, "kind": "network"}, ["network", "rm"]),
        ("creating", NOTEBOOK, {"container": "calico-lab-x", "ssh": NAMED["ssh"]}, ["rm", "--force"]),
        # It may hold data, and can be created again.
        ("creating", OBJECT, {**NAMED, "kind": "volume"}, None),
        ("deleting", OBJECT, {**NAMED, "kind": "container"}, None),
        ("creating", "command:remote:Command", {}, None),
        # On the controller, where labels mark them.
        ("creating", "docker:index/container:Container", {"name": "calico-lab-x"}, None),
    ],
)
def test_unfinished_of_a_pending_operation(
    operation: str, kind: str, inputs: dict[str, str], removal: list[str] | None
) -> None:
    pending = {"type": operation, "resource": {"urn": "x", "type": kind, "inputs": inputs}}
    found = unfinished({"deployment": {"pending_operations": [pending]}})
    name = "calico-lab-x"
    assert found == ([Unfinished("ssh://root@10.0.0.2:22", name, [*removal, name])] if removal else [])


def test_unfinished_of_a_component_that_has_no_inputs() -> None:
    pending = {"type": "creating", "resource": {"urn": "x", "type": "calico-lab:index:Hosts"}}
    assert unfinished({"deployment": {"pending_operations": [pending]}}) == []


def test_unfinished_without_pending_operations() -> None:
    assert unfinished(STATE) == []
    assert unfinished({}) == []
