"""`lab`: exit codes, wrong usage, help, version."""

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from diagnosis import status
from lab import __main__ as command
from tests.unit.diagnosis import lab_cases
from workspace import outputs as stack


def run(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(stack, "read", lambda name: lab_cases.outputs())
    monkeypatch.setattr(status, "look", lambda outputs, name: lab_cases.status(case))
    result = CliRunner().invoke(command.main, list(arguments))
    return result.exit_code, result.output


def test_status_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(monkeypatch, {}, "status")
    assert code == 0
    assert "Everything is as it has to be." in text


def test_status_warning_has_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"machines": {"a1": {"drop": ["memory"], "lines": ["memory 1"]}}}
    code, text = run(monkeypatch, case, "status")
    assert code == 0
    assert "0.0 GiB of memory are free" in text
    assert "next: give it more memory, or end what else runs there" in text
    code, text = run(monkeypatch, case, "status", "--json")
    assert (code, json.loads(text)["healthy"]) == (0, True)


def test_status_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"machines": {"a1": {"status": 255, "error": "No route to host"}}}
    code, text = run(monkeypatch, case, "status")
    assert code == 1
    assert "a1: does not answer SSH: No route to host" in text
    assert "next: start it, or run 'make up' if its container is gone; then: ssh -F" in text
    code, text = run(monkeypatch, case, "status", "--json")
    assert code == 1
    assert json.loads(text)["findings"][0]["where"] == "a1"


def test_welcome_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(monkeypatch, {}, "--stack", "lab", "welcome")
    assert code == 0
    for part in (
        "http://172.16.6.231:8888/",
        "ssh -F .state/ssh/lab/config a0",
        "notebookToken",
        "lab status",
    ):
        assert part in text
    code, text = run(monkeypatch, {}, "--stack", "other", "welcome")
    for part in ("lab --stack other status", "make destroy STACK=other"):
        assert part in text


def test_graph_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"machines": {"a1": {"status": 255, "error": "No route to host"}}}
    code, text = run(monkeypatch, case, "graph")
    assert (code, text.splitlines()[0]) == (0, "flowchart LR")
    code, text = run(monkeypatch, case, "graph", "--format", "dot")
    assert (code, text.splitlines()[0]) == (0, "graph lab {")
    code, text = run(monkeypatch, case, "graph", "--json")
    assert [machine["well"] for machine in json.loads(text)["groups"]] == [True, False, True, True]


def test_status_without_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> stack.Outputs:
        raise stack.StackError(f"stack {name} cannot be read")

    monkeypatch.setattr(stack, "read", refuse)
    result = CliRunner().invoke(command.main, ["--stack", "nowhere", "status"])
    assert result.exit_code == 2
    assert "stack nowhere cannot be read" in result.output


@pytest.mark.parametrize("arguments", [["no-such-verb"], ["status", "--no-such-option"], []])
def test_main_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["status", "--help"],
        ["why", "-h"],
        ["doctor", "-h"],
        ["drift", "-h"],
        ["trace", "-h"],
        ["welcome", "-h"],
        ["graph", "-h"],
    ],
)
def test_main_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_main_help_lists_all_verbs() -> None:
    text = CliRunner().invoke(command.main, ["--help"]).output
    for verb, (_, summary) in command.VERBS.items():
        assert f"  {verb} " in text
        assert summary.split()[0] in text


def test_main_version() -> None:
    result = CliRunner().invoke(command.main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("lab, version ")


def test_main_starts_without_pulumi() -> None:
    script = "import sys, lab.__main__, lab.status, lab.trace; sys.exit('pulumi' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lab wh", ["why"]),
        ("lab why a", ["a0", "a1", "a2"]),
        ("lab why v", ["visitor"]),
        ("lab why a1 ", ["a0", "a1", "a2"]),
        ("lab trace n", ["notebook"]),
        ("lab trace notebook ", ["notebook", "sshbox", "a0", "a1", "a2"]),
        ("lab --stack nowhere why a", []),
    ],
)
def test_completion(words: str, expected: list[str]) -> None:
    count = len(words.split(" ")) - 1
    result = CliRunner().invoke(
        command.main,
        prog_name="lab",
        env={"_LAB_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)},
    )
    assert [line.partition(",")[2] for line in result.output.split()] == expected
