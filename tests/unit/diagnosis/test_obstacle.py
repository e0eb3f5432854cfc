"""Obstacle: where a connection is blocked, judged by traces on both hosts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components.hosts.remote import Answer
from diagnosis.obstacle import judge

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "obstacle.json").read_text())


def traced(lines: Sequence[str], error: str = "") -> Answer:
    text = "\n".join(f" TRACE: 2 701237af {line}" for line in lines)
    return Answer(1 if error else 0, text, error)


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_judge(case: dict[str, Any]) -> None:
    request, reply = traced(case["there"], case.get("error", "")), traced(case["back"])
    assert judge("a1", "a0", 2380, request, reply) == case["said"]
