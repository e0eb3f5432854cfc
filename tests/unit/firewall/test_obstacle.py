"""What is said of a connection that does not come about, by the traces at both of its ends."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from components.hosts.remote import Answer
from diagnosis.obstacle import judge
from tests.unit.firewall.firewall_cases import CASES

TABLE: dict[str, Any] = json.loads((CASES / "obstacle.json").read_text())


def traced(lines: Sequence[str], error: str = "") -> Answer:
    text = "\n".join(f" TRACE: 2 701237af {line}" for line in lines)
    return Answer(1 if error else 0, text, error)


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_judge(case: dict[str, Any]) -> None:
    there, back = traced(case["there"], case.get("error", "")), traced(case["back"])
    assert judge("a1", "a0", 2380, there, back) == case["said"]
