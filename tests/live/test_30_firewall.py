"""The four exercises on a0 with real packets, before, during and after; and what is left of them: nothing.

`exercises.json` has what each policy does to which flow; every flow that it does not name stays open.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import remote, stack, status
from lab.stack import Outputs
from tests.live.program import Program
from tests.live.waiting import eventually

HERE = Path(__file__).parent
EXERCISES: dict[str, dict[str, dict[str, str]]] = json.loads((HERE / "exercises.json").read_text())
FLOWS = (HERE / "flows.sh").read_text()
TARGET = "a0"
OTHER_ADDRESS = "172.16.6.67"
PORTS = (22, 80, 2379)
OPEN = {**{f"tcp/{port}": "open" for port in PORTS}, "ping": "open"}
SENDERS = {
    "visitor": ("visitor", ""),
    "visitor with another address": ("visitor", OTHER_ADDRESS),
    "a1": ("a1", ""),
}
LISTENER = "lab-test-web"


@pytest.fixture(scope="module", autouse=True)
def scene(outputs: Outputs) -> Iterator[None]:
    """Something that listens on the target's port 80, and a second address for the visitor."""
    listen = f"systemd-run --quiet --collect --unit {LISTENER} nc -l -k 0.0.0.0 80"
    second = f"ip address replace {OTHER_ADDRESS}/32 dev eth0"
    for machine, script in ((TARGET, listen), ("visitor", second)):
        answer = remote.run(outputs.ssh[machine], script)
        assert answer.status == 0, f"{machine}: {answer.error}"
    eventually(lambda: all_open(outputs), seconds=10)
    yield
    remote.run(outputs.ssh[TARGET], f"systemctl stop {LISTENER}")
    remote.run(outputs.ssh["visitor"], f"ip address del {OTHER_ADDRESS}/32 dev eth0")


def seen(outputs: Outputs) -> dict[str, dict[str, str]]:
    """What comes of each flow to the target, by sender."""

    def ask(sender: str) -> dict[str, str]:
        machine, source = SENDERS[sender]
        variables = {
            "TARGET": outputs.hosts[TARGET],
            "SOURCE": source,
            "PORTS": " ".join(str(port) for port in PORTS),
        }
        answer = remote.run(outputs.ssh[machine], FLOWS, variables)
        assert answer.status == 0, f"{machine}: {answer.error}"
        words = (line.partition(" ") for line in answer.text.splitlines())
        return {flow: outcome for flow, _, outcome in words}

    with ThreadPoolExecutor() as pool:
        return dict(zip(SENDERS, pool.map(ask, SENDERS), strict=True))


def all_open(outputs: Outputs) -> None:
    assert seen(outputs) == dict.fromkeys(SENDERS, OPEN)


def kernel_rules(outputs: Outputs) -> list[str]:
    """Everything in the target's packet filters, of whomever, without counters and comments."""
    answer = remote.run(outputs.ssh[TARGET], "iptables-save; ip6tables-save; ipset list -name 2>/dev/null")
    assert answer.status == 0, answer.error
    return [
        re.sub(r"\[\d+:\d+\]", "", line).strip()
        for line in answer.text.splitlines()
        if not line.startswith("#")
    ]


def changed(told: str) -> int:
    """How many resources `pulumi up` says that it touched."""
    return sum(int(count) for count in re.findall(r"(\d+) (?:created|updated|replaced|deleted)", told))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("policy", EXERCISES)
def test_exercise(policy: str, outputs: Outputs, program: Program, tmp_path: Path) -> None:
    all_open(outputs)
    before = kernel_rules(outputs)
    config = program.changed_config(tmp_path, {f"firewall.policies.{policy}.enabled": "true"})
    changes = program.preview(config)
    assert {change.name for change in changes} == {f"{TARGET}-firewall"}
    try:
        assert changed(program.up(config)) == len(changes) > 0
        assert seen(outputs) == {sender: {**OPEN, **EXERCISES[policy].get(sender, {})} for sender in SENDERS}
        now = stack.read(program.stack)
        assert now.firewall[TARGET] == (policy,)
        assert status.findings(status.look(now, program.stack)) == []
    finally:
        told = program.up()
    assert changed(told) == len(changes)
    all_open(outputs)
    assert kernel_rules(outputs) == before


@pytest.mark.timeout(180)
def test_a_change_of_one_rule_is_a_change_of_one_resource(
    outputs: Outputs, program: Program, tmp_path: Path
) -> None:
    ping = "firewall.policies.reject-ping"
    before = kernel_rules(outputs)
    enabled = program.changed_config(tmp_path, {f"{ping}.enabled": "true"})
    program.up(enabled)
    try:
        other = tmp_path / "other"
        other.mkdir()
        config = program.changed_config(other, {f"{ping}.enabled": "true", f"{ping}.rules[0].source": "a1"})
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
