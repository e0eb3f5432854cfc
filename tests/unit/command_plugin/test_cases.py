"""Every case in `cases/` holds for this plugin."""

from typing import Any

import pytest
from run_cases import Runner, load
from testbed import Plugin, Sshd

CASES = load()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, plugin: Plugin, sshd: Sshd) -> None:
    assert Runner(plugin, sshd, official=False).problems(name, CASES[name]) == []


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (
            {"inputs": {"create": "echo a"}, "expect": {"outputs": {"stdout": "b", "stderr": ""}}},
            "stdout is 'a', not 'b'",
        ),
        ({"inputs": {"create": "echo a"}, "expect": {"outputs": {"stdout": "a"}}}, "stderr is there: ''"),
        ({"inputs": {"create": "echo a"}, "expect": {"error": ["x"]}}, "expected an error, but it succeeded"),
        (
            {"inputs": {"create": "exit 1"}, "expect": {"error": ["nowhere"]}},
            "the error does not say 'nowhere'",
        ),
        (
            {"inputs": {}, "expect": {"outputs": {"stdout": "", "stderr": ""}}, "after": "false"},
            "what it did is not as stated",
        ),
    ],
)
def test_a_case_that_does_not_hold_is_told(
    case: dict[str, Any], problem: str, plugin: Plugin, sshd: Sshd
) -> None:
    case = {"type": "local:Command", "operation": "create", **case}
    problems = Runner(plugin, sshd, official=False).problems("case", case)
    assert any(problem in line for line in problems), problems


def test_where_the_official_plugin_differs_a_case_says_why() -> None:
    assert all(case["official"]["because"] for case in CASES.values() if "official" in case)
