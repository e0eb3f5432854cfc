"""`lab class`: what the hosts say of the notebooks, and what is made of it."""

from datetime import UTC, datetime, timedelta

import pytest

from diagnosis.notebooks import NotebookFacts, parse
from lab.classroom import age, problems, row, url
from tests.unit.diagnosis.lab_cases import outputs

ALICE = (
    "alice\tcalico-lab-notebook-alice\trunning\thealthy\t536870912\t94896128\t1.25\t3000123\t"
    '{"connections": 0, "kernels": 2, "last_activity": "2026-11-28T10:15:00.000000Z", "started": "x"}\t'
    '{"time": "2026-11-28T10:00:00+00:00", "verified": true, "snapshot": "1"}'
)
OFF = "bob\tcalico-lab-notebook-bob\texited\tnone\t536870912\t0\t\t0\t\t"
CLASS = {
    name: {"host": "a1", "container": f"calico-lab-notebook-{name}", "path": f"/{name}/", "enabled": on}
    for name, on in (("alice", True), ("bob", False))
}


def test_parse_of_a_notebook_that_runs() -> None:
    [facts] = parse("a1", ALICE)
    assert (facts.memory, facts.limit, facts.cpu, facts.kernels) == (94896128, 536870912, 1.25, 2)
    assert facts.activity == datetime(2026, 11, 28, 10, 15, tzinfo=UTC)
    assert facts.backup
    assert facts.backup.verified


def test_parse_of_a_notebook_that_is_off() -> None:
    [facts] = parse("a1", OFF)
    assert (facts.state, facts.kernels, facts.activity, facts.backup) == ("exited", None, None, None)


@pytest.mark.parametrize("broken", ["", "alice\trunning", ALICE.replace("{", "[")])
def test_parse_of_a_broken_answer(broken: str) -> None:
    for facts in parse("a1", broken):
        assert (facts.kernels, facts.backup) == (None, None)


def facts_of(text: str) -> list[NotebookFacts]:
    return list(parse("a1", text))


def test_problems_are_notebooks_that_should_answer() -> None:
    lab = outputs(notebooks=CLASS)
    assert list(problems(facts_of(f"{ALICE}\n{OFF}"), {}, lab)) == []
    [(name, what)] = problems(facts_of(OFF), {}, lab)
    assert (name, "a1 has no container calico-lab-notebook-alice" in what) == ("alice", True)
    [(name, what)] = problems(facts_of(ALICE.replace("running", "exited")), {}, lab)
    assert (name, "docker logs --tail 20 calico-lab-notebook-alice" in what) == ("alice", True)
    assert list(problems([], {"a1": "no answer"}, lab)) == []


def test_row_and_url_of_a_notebook() -> None:
    lab = outputs(notebooks=CLASS)
    shown = row(facts_of(ALICE)[0], lab)
    assert shown["url"] == url(lab, "alice") == f"{lab.proxy_url}/alice/"
    assert (shown["state"], shown["backupVerified"]) == ("running", True)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (172800, "2 d")]
)
def test_age(seconds: int, expected: str) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == expected
