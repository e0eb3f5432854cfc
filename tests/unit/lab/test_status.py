"""From what hosts say to findings, tables and JSON: one case a file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from components.shared.validity import CERTIFICATE_DAYS, RENEW_DAYS
from diagnosis.status import document, findings, warnings
from lab.tables import tables
from tests.unit.lab.lab_cases import CASES, status

DAY = 24 * 60 * 60
ENDS, AUTHORITY_ENDS = 1867113541, 2111193541
"""When the certificates in `healthy` end, in seconds since 1970."""


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_findings(path: Path) -> None:
    case = json.loads(path.read_text())
    seen = status(case)
    found, coming = findings(seen), warnings(seen)
    assert [[finding.where, finding.what] for finding in found] == case["findings"]
    assert [[warning.where, warning.what] for warning in coming] == case.get("warnings", [])
    assert all(finding.next for finding in [*found, *coming]), "each finding says what to do next"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_tables_and_json_tell_the_same(path: Path) -> None:
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


def test_json_of_a_healthy_lab() -> None:
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


@given(st.integers(-800, CERTIFICATE_DAYS), st.integers(1, DAY - 1))
def test_certificate_is_a_warning_before_its_end_and_a_finding_after_it(days: int, seconds: int) -> None:
    clock = ENDS - days * DAY - seconds
    case = {"machines": {"a1": {"drop": ["clock"], "lines": [f"clock {clock}"]}}}
    seen = status(case)
    assert [finding.where for finding in findings(seen)] == (["a1"] if days < 0 else [])
    assert [warning.where for warning in warnings(seen)] == (["a1"] if 0 <= days < RENEW_DAYS else [])
    assert {finding.next for finding in [*findings(seen), *warnings(seen)]} <= {"pulumi up --stack lab"}
    assert [one.days for one in seen.hosts["a1"].certificates if one.file.endswith("/etcd.crt")] == [days]


def test_authority_that_ends_is_seen_like_a_certificate() -> None:
    seen = status({"machines": {"a1": {"drop": ["clock"], "lines": [f"clock {AUTHORITY_ENDS + 1}"]}}})
    [finding] = findings(seen)
    assert "/etc/calico-lab/pki/etcd-ca.crt on 2036-11-25" in finding.what
