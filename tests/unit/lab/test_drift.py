"""`lab drift`: its output for answers of hosts; `drift.json` has the cases."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.hosts import remote
from lab import __main__ as command
from tests.unit.diagnosis import lab_cases
from workspace import outputs as stack

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "drift.json").read_text())
RULE = '-m set --match-set cl4-few-6f6ca033 src -m comment --comment "p/1" -j DROP'
APPLIED = {
    "host": "a0",
    "policies": ["p"],
    "loaded": {
        "ipv4": f"-A INPUT -j CALICO-LAB-INPUT\n-N CALICO-LAB-INPUT\n-A CALICO-LAB-INPUT {RULE}",
        "ipv6": "",
    },
    "sets": {"few/ipv4": "10.0.0.1/32\n"},
}
NOTHING = {"text": ["[change]", "[iptables]", "[ip6tables]", "[sets]", "[counters]"]}


def run(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], *arguments: str) -> tuple[int, str]:
    def answer(ssh: str, script: str, *_: object) -> remote.Answer:
        assert script.startswith("set -- show\n")
        recorded = case.get(ssh.rsplit(maxsplit=1)[-1], NOTHING)
        return remote.Answer(
            recorded.get("status", 0), "\n".join(recorded["text"]), recorded.get("error", "")
        )

    monkeypatch.setattr(stack, "read", lambda name: lab_cases.outputs())
    monkeypatch.setattr(stack, "resources", lambda name, kind: [APPLIED])
    monkeypatch.setattr(remote, "run", answer)
    result = CliRunner().invoke(command.main, ["drift", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_drift_output(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(monkeypatch, case)
    assert text.splitlines() == case["lines"]
    assert code == case["exit"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_drift_json_has_what_text_has(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(monkeypatch, case, "--json")
    assert code == case["exit"]
    document = json.loads(text)
    assert [host["name"] for host in document["hosts"]] == ["a0", "a1", "a2"]
    lines = "\n".join(case["lines"])
    for host in document["hosts"]:
        for drift in host["drift"]:
            assert drift["line"] in lines
            assert (drift["path"] or "") in lines
        for counter in host["counters"]:
            assert f"{counter['packets']:>10} {counter['bytes']:>14}  iptables {counter['rule']}" in lines
        assert (host["error"] or "") in lines
    assert document["drift"] == ("differs" in lines)


def test_drift_without_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, kind: str) -> None:
        raise stack.StackError(f"stack {name} cannot be read")

    monkeypatch.setattr(stack, "read", lambda name: lab_cases.outputs())
    monkeypatch.setattr(stack, "resources", refuse)
    result = CliRunner().invoke(command.main, ["drift"])
    assert result.exit_code == 2
    assert "stack lab cannot be read" in result.output
