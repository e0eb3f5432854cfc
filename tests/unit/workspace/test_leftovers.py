"""Leftovers: what the state does not know is found; another checkout's running lab is not touched."""

import base64
import hashlib
from typing import Any

import pytest

from workspace.leftovers import ForeignLabError, Leftover, Unfinished, operator_of, unfinished, unknown_to

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
            {"urn": "urn:pulumi:lab::calico-lab::x::a0-machine", "type": "x", "id": "known"},
        ]
    }
}


def machine(id_: str, operator: str, *, running: bool = True) -> Leftover:
    return Leftover("container", id_, f"calico-lab-{id_}", operator, running)


def test_the_operator_is_read_from_the_state() -> None:
    assert operator_of(STATE) == OWN
    assert operator_of({}) is None
    assert operator_of({"deployment": {"resources": None}}) is None


def test_what_the_state_holds_is_kept() -> None:
    assert unknown_to(STATE, [machine("known", OWN)]) == []


def test_what_an_interrupted_run_left_is_found_running_or_not() -> None:
    left = [machine("a1", OWN), machine("a2", OWN, running=False), machine("b", "other", running=False)]
    assert unknown_to(STATE, left) == left


def test_another_checkouts_running_lab_is_refused_unless_it_shall_be_taken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CALICO_LAB_TAKE_OVER", raising=False)
    with pytest.raises(ForeignLabError, match=r"calico-lab-a1.*make destroy.*CALICO_LAB_TAKE_OVER=1"):
        unknown_to(STATE, [machine("a1", "other")])
    monkeypatch.setenv("CALICO_LAB_TAKE_OVER", "1")
    assert unknown_to(STATE, [machine("a1", "other")]) == [machine("a1", "other")]


def begun(kind: str, operation: str, provider: str = "a1-docker") -> dict[str, Any]:
    urn = f"urn:pulumi:lab::calico-lab::pulumi:providers:docker::{provider}"
    return {
        "type": operation,
        "resource": {"urn": "x", "type": kind, "provider": f"{urn}::id", "inputs": {"name": "calico-lab-x"}},
    }


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (
            begun("docker:index/container:Container", "creating"),
            [Unfinished("ssh://root@10.0.0.2:22", "calico-lab-x", ["rm", "--force", "calico-lab-x"])],
        ),
        (
            begun("docker:index/network:Network", "creating"),
            [Unfinished("ssh://root@10.0.0.2:22", "calico-lab-x", ["network", "rm", "calico-lab-x"])],
        ),
        # It may hold what somebody has saved, and can be made again as it is.
        (begun("docker:index/volume:Volume", "creating"), []),
        (begun("docker:index/container:Container", "deleting"), []),
        (begun("command:remote:Command", "creating"), []),
        # On the controller, where labels tell.
        (begun("docker:index/container:Container", "creating", "controller"), []),
    ],
)
def test_what_a_killed_run_began_on_a_host_is_found(
    operation: dict[str, Any], found: list[Unfinished]
) -> None:
    providers = [
        {
            "urn": f"urn:pulumi:lab::calico-lab::pulumi:providers:docker::{name}",
            "type": "pulumi:providers:docker",
            "inputs": inputs,
        }
        for name, inputs in (("a1-docker", {"host": "ssh://root@10.0.0.2:22"}), ("controller", {}))
    ]
    state = {"deployment": {"resources": providers, "pending_operations": [operation]}}
    assert unfinished(state) == found


def test_a_run_that_ended_has_begun_nothing() -> None:
    assert unfinished(STATE) == []
    assert unfinished({}) == []
