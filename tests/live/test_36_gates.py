"""A host that its peers do not reach: the gates of etcd and of the network name the rule left behind there.

The rule is one that nobody's config has, typed by hand: the course's exercise, on the wrong machine.
"""

import re
from collections.abc import Iterator

import pytest

from components.hosts import remote
from diagnosis import status
from tests.live.program import QUIET, Program
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import Outputs

HOST = "a1"
SERVICES = "calico-lab-etcd calico-lab-bird"
SECONDS = 240


def rules(outputs: Outputs) -> list[str]:
    """What is left behind on the host: reject everything from an address, for each of the others."""
    others = (address for host, address in outputs.hosts.items() if host != HOST)
    return [f"INPUT -s {address}/32 -j REJECT --reject-with icmp-port-unreachable" for address in others]


@pytest.fixture
def left_behind(outputs: Outputs, program: Program) -> Iterator[None]:
    """The rules, and services that have to find their peers anew in spite of them."""
    put = "\n".join(f"iptables -I {rule}" for rule in rules(outputs))
    taken = "\n".join(f"iptables -D {rule}" for rule in rules(outputs))
    try:
        done = remote.run(outputs.ssh[HOST], f"{put}\nsystemctl restart --no-block {SERVICES}")
        assert done.status == 0, done.error
        yield
    finally:
        remote.run(outputs.ssh[HOST], f"{taken}\nsystemctl restart --no-block {SERVICES}")

        def healthy() -> None:
            assert status.findings(status.look(outputs, program.stack)) == []

        eventually(healthy, seconds=60)
        program.up()


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.usefixtures("left_behind")
@pytest.mark.parametrize(
    ("gate", "port", "says"),
    [
        ("etcd-health", 2380, "etcd: the member is not healthy"),
        ("calico-ready", 179, "calico: the network is not ready"),
    ],
)
def test_the_gate_names_the_rule(outputs: Outputs, program: Program, gate: str, port: int, says: str) -> None:
    urns = [one["urn"] for one in program.state()["deployment"]["resources"]]
    [urn] = [urn for urn in urns if urn.endswith(f"::{gate}")]
    with pytest.raises(ProgramError) as error:
        # A gate that is made anew has to see that its condition is met.
        program.pulumi(
            "up", "--yes", "--skip-preview", *QUIET, "--replace", urn, "--target", urn, seconds=SECONDS
        )
    said = str(error.value)
    assert "Traceback" not in said
    assert f"{HOST}: {says}" in said
    why = "\n".join(line.strip() for line in said.splitlines() if "cannot open" in line)
    for rule in rules(outputs):
        peer = next(host for host, address in outputs.hosts.items() if f" {address}/32 " in rule)
        advice = re.escape(f"rule -t filter -A {rule}; next: on {HOST}: iptables -t filter -D {rule}")
        # What the peer sends is stopped, and of what the host sends the answer.
        assert re.search(rf"{peer} cannot open tcp/{port} on {HOST} .*; {HOST} stops it: {advice}", why), why
        assert re.search(
            rf"{HOST} cannot open tcp/{port} on {peer} .*{HOST} stops the answer: {advice}", why
        ), why
