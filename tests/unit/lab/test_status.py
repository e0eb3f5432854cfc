"""From what hosts say to findings, tables and JSON: one case a file."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from lab.status import document, findings
from lab.tables import tables
from tests.unit.lab.lab_cases import CASES, status


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_findings(path: Path) -> None:
    case = json.loads(path.read_text())
    found = findings(status(case))
    assert [[finding.where, finding.what] for finding in found] == case["findings"]
    assert all(finding.next for finding in found), "each finding says what to do next"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_tables_and_json_tell_the_same(path: Path) -> None:
    seen = status(json.loads(path.read_text()))
    found = findings(seen)
    console = Console(width=200, record=True, soft_wrap=True)
    for table in tables(seen, found):
        console.print(table)
    text = console.export_text()
    told = json.loads(json.dumps(document(seen)))
    assert told["healthy"] == (not found)
    assert ("Everything is as it has to be." in text) == (not found)
    for finding in told["findings"]:
        assert finding["what"] in text
        assert finding["next"] in text


def test_json_of_a_healthy_lab() -> None:
    told = document(status({}))
    assert [host["name"] for host in told["hosts"]] == ["a0", "a1", "a2", "visitor"]
    assert [host["member"] for host in told["hosts"]] == [True, True, True, False]
    assert told["hosts"][0]["uptimeSeconds"] == 118
    assert [member["leader"] for member in told["etcd"]] == [False, True, False]
    assert told["etcd"][0]["databaseBytes"] == 49152
    pairs = [(session["host"], session["peer"]) for session in told["bgp"]]
    assert pairs == [("a0", "a1"), ("a0", "a2"), ("a1", "a0"), ("a1", "a2"), ("a2", "a0"), ("a2", "a1")]
    assert {session["state"] for session in told["bgp"]} == {"Established"}
    addresses = {container["name"]: container["address"] for container in told["containers"]}
    assert addresses == {
        "calico-lab-sshbox": "192.168.0.101",
        "calico-lab-notebook": "192.168.0.100",
        "mine": None,
        "calico-lab-proxy": None,
    }
    assert "secret" not in json.dumps(told)
