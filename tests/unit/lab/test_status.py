"""`lab status`: tables and JSON for each case."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from components.shared.validity import CERTIFICATE_DAYS
from diagnosis.status import findings, warnings
from lab.status import document, tables
from tests.unit.diagnosis.lab_cases import CASES, status


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_tables_have_what_json_has(path: Path) -> None:
    seen = status(json.loads(path.read_text()))
    found = findings(seen)
    console = Console(width=200, record=True, soft_wrap=True)
    for table in tables(seen, found, warnings(seen)):
        console.print(table)
    text = console.export_text()
    told = json.loads(json.dumps(document(seen)))
    assert told["healthy"] == (not found)
    assert ("Everything is as it has to be." in text) == (not found)
    for finding in [*told["findings"], *told["warnings"]]:
        assert finding["what"] in text
        assert finding["next"] in text


def test_document_healthy() -> None:
    told = document(status({}))
    assert [host["name"] for host in told["hosts"]] == ["a0", "a1", "a2", "visitor"]
    assert [host["member"] for host in told["hosts"]] == [True, True, True, False]
    assert told["hosts"][0]["uptimeSeconds"] == 118
    assert told["hosts"][0]["memoryBytes"] == 20772240 * 1024
    assert told["hosts"][0]["disks"] == [
        {"path": path, "freeBytes": 74368892 * 1024, "sizeBytes": 264212084 * 1024}
        for path in ("/", "/var/lib/docker")
    ]
    assert told["hosts"][0]["certificates"][1] == {
        "file": "/etc/calico-lab/pki/calico.crt",
        "ends": "2029-03-02T02:39:01+00:00",
        "daysLeft": CERTIFICATE_DAYS - 1,
    }
    assert [len(host["certificates"]) for host in told["hosts"]] == [4, 4, 4, 0]
    assert told["warnings"] == []
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
