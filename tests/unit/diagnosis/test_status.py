"""Status: from the facts of hosts to findings and warnings. Each file in `cases` is a case."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.hosts import remote
from components.shared.validity import CERTIFICATE_DAYS, RENEW_DAYS
from diagnosis.status import STATUS_SCRIPT, findings, warnings
from tests.unit.diagnosis.lab_cases import CASES, status

DAY_SECONDS = 24 * 60 * 60
ENDS, AUTHORITY_ENDS = 1867113541, 2111193541
"""When the certificates in `healthy` expire, in seconds since 1970."""


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_findings(path: Path) -> None:
    case = json.loads(path.read_text())
    seen = status(case)
    found, coming = findings(seen), warnings(seen)
    assert [[finding.where, finding.what] for finding in found] == case["findings"]
    assert [[warning.where, warning.what] for warning in coming] == case.get("warnings", [])
    assert all(finding.next for finding in [*found, *coming]), "each finding says what to do next"


@given(st.integers(-800, CERTIFICATE_DAYS), st.integers(1, DAY_SECONDS - 1))
def test_findings_certificate_warns_before_it_expires(days: int, seconds: int) -> None:
    clock = ENDS - days * DAY_SECONDS - seconds
    case = {"machines": {"a1": {"drop": ["clock"], "lines": [f"clock {clock}"]}}}
    seen = status(case)
    assert [finding.where for finding in findings(seen)] == (["a1"] if days < 0 else [])
    assert [warning.where for warning in warnings(seen)] == (["a1"] if 0 <= days < RENEW_DAYS else [])
    assert {finding.next for finding in [*findings(seen), *warnings(seen)]} <= {"pulumi up --stack lab"}
    assert [one.days for one in seen.hosts["a1"].certificates if one.file.endswith("/etcd.crt")] == [days]


def test_findings_expired_authority() -> None:
    seen = status({"machines": {"a1": {"drop": ["clock"], "lines": [f"clock {AUTHORITY_ENDS + 1}"]}}})
    [finding] = findings(seen)
    assert "/etc/calico-lab/pki/etcd-ca.crt on 2036-11-25" in finding.what


def test_status_script_completes_on_a_host_without_the_lab() -> None:
    answer = remote.run("sh -c", STATUS_SCRIPT.read_text(), {"NETWORK": "no-such-network", "ENDPOINT": ""})
    assert answer.status == 0
    assert answer.text.splitlines()[-1] == "complete yes"
