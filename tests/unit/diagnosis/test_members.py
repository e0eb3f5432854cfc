"""members: the cause that the host of an etcd member gives, from recorded answers."""

import json
from pathlib import Path

import pytest

from components.hosts.remote import Answer
from diagnosis.members import cause, parse

CASES = json.loads((Path(__file__).parent / "members.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_cause(name: str) -> None:
    case = CASES[name]
    answer = Answer(0, "\n".join(case["said"]), "")
    found = cause("a1", parse(answer), "pulumi up --stack lab")
    assert (list(found) if found else None) == case["cause"]
