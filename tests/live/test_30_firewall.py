"""The four exercises on a0 with real packets: before, while applied, and after, when no rule is left."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnosis import status
from tests.live import scene
from tests.live.program import Program
from tests.live.scene import EXERCISES, OPEN, SENDERS, TARGET, all_open, kernel_rules, seen
from tests.live.waiting import eventually
from workspace import outputs as stack
from workspace.outputs import Outputs


@pytest.fixture(scope="module", autouse=True)
def _scene(outputs: Outputs) -> Iterator[None]:
    scene.set_up(outputs)
    eventually(lambda: all_open(outputs), seconds=10)
    yield
    scene.take_down(outputs)


def changed(told: str) -> int:
    """How many resources `pulumi up` says that it touched."""
    return sum(int(count) for count in re.findall(r"(\d+) (?:created|updated|replaced|deleted)", told))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("policy", EXERCISES)
def test_firewall_exercise(policy: str, outputs: Outputs, program: Program, tmp_path: Path) -> None:
    all_open(outputs)
    before = kernel_rules(outputs)
    config = program.changed_config(tmp_path, {f"firewall.policies.{policy}.enabled": True})
    try:
        assert changed(program.up(config)) == 1
        assert seen(outputs) == {sender: {**OPEN, **EXERCISES[policy].get(sender, {})} for sender in SENDERS}
        now = stack.read(program.stack)
        assert now.firewall[TARGET] == (policy,)
        assert status.findings(status.look(now, program.stack)) == []
    finally:
        told = program.up()
    assert changed(told) == 1
    all_open(outputs)
    assert kernel_rules(outputs) == before


@pytest.mark.timeout(180)
def test_firewall_change_of_one_rule(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    ping = "firewall.policies.reject-ping"
    before = kernel_rules(outputs)
    enabled = program.changed_config(tmp_path, {f"{ping}.enabled": True})
    program.up(enabled)
    try:
        other = tmp_path / "other"
        other.mkdir()
        rules = [{"action": "reject", "protocol": "icmp", "icmpType": "echo-request", "source": "a1"}]
        config = program.changed_config(other, {f"{ping}.enabled": True, f"{ping}.rules": rules})
        [change] = program.preview(config)
        assert change.operation == "update"
        told = program.pulumi("preview", "--diff", "--non-interactive", "--config-file", str(config))
        assert outputs.hosts["a1"] in told, "the preview shows the rule that comes"
        assert changed(program.up(config)) == 1
        assert seen(outputs) == {**dict.fromkeys(SENDERS, OPEN), "a1": {**OPEN, "ping": "refused"}}
    finally:
        program.up()
    all_open(outputs)
    assert kernel_rules(outputs) == before
