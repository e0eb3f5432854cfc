"""`lab trace` with parsed output, and a check that both dataplanes share."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.guests import Guest
from tests.live import calico
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import PROJECT, Outputs

# Three probes of all hosts and two of the ends, one after the other, on a machine that may be busy.
_SECONDS = 100
_POLICY = "lab-test-trace"


def lab_trace(program: Program, *arguments: str) -> dict[str, Any]:
    """Trace, and return what is told to machines; the exit code has to agree with it."""
    done = subprocess.run(
        ["lab", "--stack", program.stack, "trace", "--json", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["arrived"] == (done.returncode == 0)
    return told


def way(told: dict[str, Any]) -> list[tuple[str, str]]:
    """The places of a way, each with its host or container."""
    return [(hop["kind"], hop["where"]) for hop in told["hops"]]


def facts(told: dict[str, Any], kind: str) -> dict[str, str]:
    """The facts at the first place of a kind."""
    found: dict[str, str] = next(hop["facts"] for hop in told["hops"] if hop["kind"] == kind)
    return found


def name(guest: Guest) -> str:
    """How a guest is called on the command line."""
    return f"{guest.host}/{guest.name}"


@contextmanager
def _policy(outputs: Outputs, spec: dict[str, Any]) -> Iterator[None]:
    document = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "spec": spec}
    calico.apply(outputs, {**document, "metadata": {"name": _POLICY}})
    try:
        yield
    finally:
        calico.calicoctl(outputs, f"delete globalnetworkpolicy {_POLICY}")


def finds_the_policy_that_drops(
    outputs: Outputs, program: Program, ends: list[Guest], direction: str, at: Guest
) -> None:
    """Have a policy drop connections from one guest to another, and then not.

    Args:
        outputs: The lab.
        program: Its program.
        ends: Who sends, and to whom.
        direction: The policy's, `Ingress` or `Egress`.
        at: The one of them at whose host it has to be found.
    """
    # All endpoints, so that no label is needed: what is denied is this flow alone. Nobody listens there, and
    # nobody knows it either: to programs in the kernel, pings are one connection for some seconds.
    to = {"nets": [f"{ends[1].address}/32"], "ports": [5003]}
    rules = {
        direction.lower(): [{"action": "Deny", "protocol": "TCP", "destination": to}, {"action": "Allow"}]
    }
    sender, target = map(name, ends)

    def dropped() -> None:
        told = lab_trace(program, sender, target, "tcp/5003")
        assert told["finding"], told["outcome"]
        assert way(told)[-1] == ("felix", at.host)
        assert told["finding"]["where"] == at.host
        assert told["finding"]["what"].endswith(f"dropped: policy default.{_POLICY}")
        assert "calicoctl" in told["finding"]["next"]

    def open_() -> None:
        assert lab_trace(program, sender, target, "tcp/5003")["arrived"]

    with _policy(outputs, {"selector": "all()", "types": [direction], **rules}):
        eventually(dropped, seconds=20)
        assert lab_trace(program, sender, target)["arrived"]
    eventually(open_, seconds=20)
