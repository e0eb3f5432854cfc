"""A host that its peers do not reach: the gates of etcd and of the network name the rule that stops them.

The rule is in no config: it was typed by hand, as the exercise of the course, on the wrong host.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.hosts import remote
from components.readiness import gate as gates
from diagnosis import status
from tests.live.program import QUIET, Program
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import Outputs

HOST = "a1"
SERVICES = "calico-lab-etcd calico-lab-bird"
SECONDS = 240
GATES = {
    "etcd-health": (2380, "etcd: the member is not healthy"),
    "calico-ready": (179, "calico: the network is not ready"),
}
"""The port that a gate watches, and what it says when it stays closed."""
SHORT_WAIT_SECONDS = 30


def rules(outputs: Outputs) -> list[str]:
    """What is left behind on the host: reject everything from an address, for each of the others."""
    others = (address for host, address in outputs.hosts.items() if host != HOST)
    return [f"INPUT -s {address}/32 -j REJECT --reject-with icmp-port-unreachable" for address in others]


@pytest.fixture(scope="module")
def said(outputs: Outputs, program: Program) -> Iterator[dict[str, str]]:
    """What each gate says while the rules are there and services have to find their peers again.

    The gate of the network depends on that of etcd, so one `up` runs no more than one of them: `up` replaces
    the gate of etcd, and then the other's provider runs with the inputs from the state. They do not run at
    the same time, because a host takes one trace at a time.
    """
    resources = program.state()["deployment"]["resources"]
    etcd, network = (next(one for one in resources if one["urn"].endswith(f"::{gate}")) for gate in GATES)
    put = "\n".join(f"iptables -I {rule}" for rule in rules(outputs))
    taken = "\n".join(f"iptables -D {rule}" for rule in rules(outputs))
    try:
        done = remote.run(outputs.ssh[HOST], f"{put}\nsystemctl restart --no-block {SERVICES}")
        assert done.status == 0, done.error
        yield dict(
            zip(GATES, (up_fails(program, etcd["urn"]), waits_in_vain(network["inputs"])), strict=True)
        )
    finally:
        remote.run(outputs.ssh[HOST], f"{taken}\nsystemctl restart --no-block {SERVICES}")

        def healthy() -> None:
            assert status.findings(status.look(outputs, program.stack)) == []

        eventually(healthy, seconds=60)
        program.up()


def up_fails(program: Program, urn: str) -> str:
    """Replace a gate, which then has to see that its condition is met; return what `up` says."""
    with pytest.raises(ProgramError) as error:
        program.pulumi(
            "up", "--yes", "--skip-preview", *QUIET, "--replace", urn, "--target", urn, seconds=SECONDS
        )
    return str(error.value)


def waits_in_vain(inputs: dict[str, Any]) -> str:
    """Run a gate for a short time, and return what it says."""
    with pytest.raises(remote.HostError) as error:
        gates.wait({**inputs, "seconds": SHORT_WAIT_SECONDS})
    return str(error.value)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("gate", GATES)
def test_gate_names_a_foreign_rule(outputs: Outputs, said: dict[str, str], gate: str) -> None:
    port, says = GATES[gate]
    assert "Traceback" not in said[gate]
    assert f"{HOST}: {says}" in said[gate]
    why = "\n".join(line.strip() for line in said[gate].splitlines() if "cannot open" in line)
    for rule in rules(outputs):
        peer = next(host for host, address in outputs.hosts.items() if f" {address}/32 " in rule)
        advice = re.escape(f"rule -t filter -A {rule}; next: on {HOST}: iptables -t filter -D {rule}")
        # What the peer sends is stopped, and of what the host sends the answer.
        assert re.search(rf"{peer} cannot open tcp/{port} on {HOST} .*; {HOST} stops it: {advice}", why), why
        assert re.search(
            rf"{HOST} cannot open tcp/{port} on {peer} .*{HOST} stops the answer: {advice}", why
        ), why
