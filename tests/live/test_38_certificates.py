"""Certificates near their end: `lab status` warns, one `up` renews all, and no connection is lost.

The test signs the same keys again with an earlier end, in the stack's state and on the hosts.
"""

import datetime as dt
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.guests import Guest
from components.calico import rendering as calico
from components.etcd import rendering as etcd
from components.hosts import remote
from components.shared.validity import AUTHORITY_DAYS, CERTIFICATE_DAYS
from diagnosis import status
from tests.live import connections
from tests.live.program import Program
from tests.live.test_60_status import lab
from tests.live.waiting import eventually
from workspace.outputs import Outputs

UNIT = "calico-lab-etcd.service"
DAYS = 30
"""Fewer than 60, at which an update renews."""
AUTHORITIES = (etcd.AUTHORITY_FILE, calico.AUTHORITY_FILE)
CERTIFICATES = {"etcd-certificate": etcd.CERTIFICATE_FILE, "calico-certificate": calico.CERTIFICATE_FILE}
SECONDS = 300
# How many members confirm a read with a quorum, all the time. While certificate and key are renamed to their
# paths, one after the other, they do not fit, and nobody can be asked.
WATCH = """
set -a; . /etc/calico-lab/etcd/etcdctl.env; set +a
echo ready
while read -r -t 0.2 _; [ $? -gt 128 ]; do
    said=$(etcdctl --command-timeout=10s endpoint health 2>&1 </dev/null)
    [[ $said == *'private key does not match'* ]] || grep -c 'is healthy' <<<"$said"
done
"""
DOWN = "systemctl show -P ActiveExitTimestampMonotonic -P ActiveEnterTimestampMonotonic " + UNIT


def signed_again(certificate: str, key: ec.EllipticCurvePrivateKey, days: float) -> str:
    """The same certificate with another end."""
    old = x509.load_pem_x509_certificate(certificate.encode())
    builder = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        x509.random_serial_number(),
        old.not_valid_before_utc,
        dt.datetime.now(dt.UTC) + dt.timedelta(days=days),
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def days_of(name: str, last: str) -> float:
    """How long a certificate has: some days, and that of Calico on one host none."""
    return 0 if name == f"{last}-calico-certificate" else DAYS


@pytest.fixture
def about_to_end(outputs: Outputs, program: Program, tmp_path: Path) -> Iterator[str]:
    """A lab whose certificates are about to end; that of Calico on the host that it yields has ended."""
    last = list(outputs.hosts)[-1]
    [authority] = [
        one["outputs"]
        for one in program.state()["deployment"]["resources"]
        if one["type"].endswith(":CertificateAuthority")
    ]
    key = serialization.load_pem_private_key(
        program.plaintext(authority["private_key"]).encode(), password=None
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    state: dict[str, Any] = json.loads(program.pulumi("stack", "export"))
    files: dict[str, dict[str, str]] = {host: {} for host in outputs.hosts}
    for one in state["deployment"]["resources"]:
        name = one["urn"].rpartition("::")[2]
        if one["type"].endswith((":CertificateAuthority", ":Certificate")):
            renewed = signed_again(one["outputs"]["certificate"], key, days_of(name, last))
            one["outputs"]["certificate"] = renewed
            if one["type"].endswith(":CertificateAuthority"):
                for contents in files.values():
                    contents.update(dict.fromkeys(AUTHORITIES, renewed))
            else:
                host, _, kind = name.partition("-")
                files[host][CERTIFICATES[kind]] = renewed
    exported = tmp_path / "state.json"
    exported.write_text(json.dumps(state))
    try:
        program.pulumi("stack", "import", "--file", str(exported))
        for host, contents in files.items():
            script = "\n".join(f"cat >{file} <<'END'\n{text}END" for file, text in contents.items())
            answer = remote.run(outputs.ssh[host], script)
            assert answer.status == 0, answer.error
        yield last
    finally:
        program.up(seconds=SECONDS)


def days_left(outputs: Outputs) -> Mapping[str, Mapping[str, int]]:
    """Days by certificate, by host, as the hosts have them."""
    return {
        host: {one.file: one.days for one in seen.certificates}
        for host, seen in status.ask(outputs).items()
        if host in outputs.hosts
    }


def down(outputs: Outputs) -> list[tuple[int, int]]:
    """When each member was stopped and ready again, in microseconds of the kernel that all hosts share."""
    answers = [remote.run(outputs.ssh[host], DOWN) for host in outputs.hosts]
    assert all(answer.status == 0 for answer in answers)
    return [(stopped, ready) for stopped, ready in (sorted(map(int, one.text.split())) for one in answers)]


@pytest.mark.timeout(2 * SECONDS + 120)
def test_certificates_renewed_by_one_up(
    outputs: Outputs, program: Program, guest: dict[str, Guest], about_to_end: str
) -> None:
    connections.connect(outputs, guest)
    says_what_ends(outputs, program, about_to_end)
    changes = program.preview()
    assert {change.operation for change in changes} == {"update"}, changes
    first = next(iter(outputs.hosts))
    before = down(outputs)
    over = threading.Event()
    with ThreadPoolExecutor() as pool:
        watch = pool.submit(
            remote.watch, outputs.ssh[first], WATCH, {}, SECONDS, ready=lambda: None, over=over
        )
        try:
            program.up(seconds=SECONDS)
        finally:
            over.set()
    counts = [int(line) for line in watch.result().text.split()]
    assert counts
    assert min(counts) > len(outputs.hosts) // 2, "there was no quorum"
    after = sorted(down(outputs))
    assert after[0][0] > max(ready for _, ready in before), "each member has restarted"
    assert all(ready < stopped for (_, ready), (stopped, _) in pairwise(after)), "one at a time"
    connections.were_kept(guest)
    days = {
        **dict.fromkeys(AUTHORITIES, AUTHORITY_DAYS - 1),
        **dict.fromkeys(CERTIFICATES.values(), CERTIFICATE_DAYS - 1),
    }
    assert days_left(outputs) == dict.fromkeys(outputs.hosts, days)
    what_is_served_is_what_is_in_the_file(outputs)

    def healthy() -> None:
        seen = status.look(outputs, program.stack)
        assert status.findings(seen) == []
        assert [one for one in status.warnings(seen) if "certificates" in one.what] == []

    eventually(healthy, seconds=60)
    assert program.preview() == [], "a second update changes nothing"


def says_what_ends(outputs: Outputs, program: Program, ended: str) -> None:
    """Both verbs name the hosts, the certificates and the days, and only what has ended is unhealthy."""
    code, text = lab("status", "--json", stack=program.stack)
    told = json.loads(text)
    assert code == 1
    soon = {one["where"]: one for one in told["warnings"] if "certificates end soon" in one["what"]}
    assert list(soon) == list(outputs.hosts)
    for host, warning in soon.items():
        assert f"{etcd.CERTIFICATE_FILE} in {DAYS - 1} days" in warning["what"]
        assert (f"{calico.CERTIFICATE_FILE} in {DAYS - 1} days" in warning["what"]) == (host != ended)
        assert all(f"{file} in {DAYS - 1} days" in warning["what"] for file in AUTHORITIES)
        assert warning["next"] == f"pulumi up --stack {program.stack}"
    [finding] = [one for one in told["findings"] if "certificates have ended" in one["what"]]
    assert finding["where"] == ended
    assert calico.CERTIFICATE_FILE in finding["what"]
    code, text = lab("doctor", "--json", stack=program.stack)
    assert code == 0, text
    assert {one["where"] for one in json.loads(text)["warnings"]} == set(outputs.hosts)


def what_is_served_is_what_is_in_the_file(outputs: Outputs) -> None:
    """A member proves itself with the certificate that `lab status` reads."""
    for host in outputs.hosts:
        url = urlsplit(outputs.etcd_endpoint(host) or "")
        assert url.hostname
        assert url.port
        served = ssl.get_server_certificate((url.hostname, url.port), timeout=10)
        answer = remote.run(outputs.ssh[host], f"cat {etcd.CERTIFICATE_FILE}")
        assert served.strip() == answer.text.strip()
