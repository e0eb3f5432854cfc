"""Explanation: the policies' verdict on a packet, and the rule behind it."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.firewall.rules.resolve import resolve
from diagnosis.explanation import explain
from tests.unit.firewall.firewall_cases import LAB, config

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "explanation.json").read_text())


@pytest.mark.parametrize("question", DOCUMENT["questions"], ids=lambda question: " ".join(question["ask"]))
def test_explain(question: dict[str, Any]) -> None:
    policies = resolve(config(DOCUMENT), LAB)
    label, doubts = None, []
    try:
        explanation = explain(policies, LAB, *question["ask"], published=question["published"])
        answer, label = str(explanation), explanation.label
        doubts = [str(doubt) for doubt in explanation.doubts]
    except ValueError as error:
        answer = str(error)
    assert (answer, label, doubts) == (question["answer"], question["label"], question.get("doubts", []))
