"""Secrets: certificates that OpenSSL accepts, their renewal, tokens, and keys that OpenSSH reads."""

import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from components.shared import secrets
from components.shared.secrets import days_left, issue_certificate, make_authority, renew_authority
from components.shared.validity import AUTHORITY_DAYS, CERTIFICATE_DAYS, RENEW_DAYS

ENDED = -5 / (24 * 60)
"""Days; less than the ten minutes by which a certificate is valid before it is made."""


def openssl(*args: str | Path) -> str:
    return subprocess.run(["openssl", *args], capture_output=True, text=True, check=True).stdout


def test_certificate_verified_by_openssl(tmp_path: Path) -> None:
    authority, key = make_authority("test")
    certificate, _ = issue_certificate(authority, key, "a0", ["a0", "172.16.6.44"], ["server"])
    (tmp_path / "ca").write_text(authority)
    (tmp_path / "crt").write_text(certificate)
    verify: list[str | Path] = ["verify", "-x509_strict", "-CAfile", tmp_path / "ca", "-purpose", "sslserver"]
    assert openssl(*verify, "-verify_ip", "172.16.6.44", tmp_path / "crt").endswith("OK\n")
    assert openssl(*verify, "-verify_hostname", "a0", tmp_path / "crt").endswith("OK\n")
    for wrong in (["-verify_ip", "172.16.6.45"], ["-verify_hostname", "a1"], ["-purpose", "sslclient"]):
        with pytest.raises(subprocess.CalledProcessError):
            openssl(*verify, *wrong, tmp_path / "crt")


def test_certificate_of_another_authority(tmp_path: Path) -> None:
    authority, _ = make_authority("test")
    certificate, _ = issue_certificate(*make_authority("test"), "a0", [], ["client"])
    (tmp_path / "ca").write_text(authority)
    (tmp_path / "crt").write_text(certificate)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", tmp_path / "ca", tmp_path / "crt")


def test_certificate_matches_its_key() -> None:
    authority, key = make_authority("test")
    certificate, leaf_key = issue_certificate(authority, key, "a0", [], ["server", "client"])
    from_certificate = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    done = subprocess.run(
        ["openssl", "pkey", "-pubout"], input=leaf_key.encode(), capture_output=True, check=True
    )
    assert (
        from_certificate.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        == done.stdout
    )


def test_days_left_are_whole_days() -> None:
    authority, key = make_authority("test")
    certificate, _ = issue_certificate(authority, key, "a0", [], ["client"])
    assert days_left(certificate) == CERTIFICATE_DAYS - 1
    assert days_left(authority) == AUTHORITY_DAYS - 1


def subject(authority: str, key: str) -> dict[str, Any]:
    """The inputs of a certificate."""
    return {
        "authority": authority,
        "authority_key": key,
        "common_name": "a0",
        "names": ["a0"],
        "usages": ["server"],
    }


def issued(inputs: dict[str, Any], days: float) -> dict[str, Any]:
    """A certificate in the state, for some days more."""
    certificate, key = issue_certificate(*inputs.values(), days=days)
    return {**inputs, "certificate": certificate, "private_key": key}


def updated_authority(days: float) -> tuple[str, str, str]:
    """What an update makes of an authority that ends after some days: old certificate, new one, and key."""
    certificate, key = make_authority("test", days)
    state = {"common_name": "test", "certificate": certificate, "private_key": key}
    provider = secrets._AuthorityProvider()
    found = provider.diff("authority", state, {"common_name": "test", "certificate": None})
    assert not found.replaces
    if not found.changes:
        return certificate, certificate, key
    made = provider.update("authority", state, {"common_name": "test"}).outs
    assert made is not None
    assert made["private_key"] == key
    return certificate, made["certificate"], key


def test_certificate_issued_again_for_another_subject() -> None:
    inputs = subject(*make_authority("test"))
    state = issued(inputs, CERTIFICATE_DAYS)
    provider = secrets._CertificateProvider()
    assert not provider.diff("a0", state, inputs).changes
    assert provider.diff("a0", state, {**inputs, "names": ["a0", "a1"]}).changes
    assert provider.diff("a0", state, {**inputs, "authority": make_authority("test")[0]}).changes


# Half a day more or less: whole days are counted.
@pytest.mark.parametrize(
    ("days", "changes"), [(RENEW_DAYS + 0.5, False), (RENEW_DAYS - 0.5, True), (0.5, True), (ENDED, True)]
)
def test_certificate_issued_again_near_its_end(days: float, changes: bool) -> None:
    inputs = subject(*make_authority("test"))
    provider = secrets._CertificateProvider()
    assert provider.diff("a0", issued(inputs, days), inputs).changes is changes
    made = provider.update("a0", {}, inputs).outs
    assert made is not None
    assert days_left(made["certificate"]) == CERTIFICATE_DAYS - 1


@pytest.mark.parametrize(
    ("days", "changes"),
    [(AUTHORITY_DAYS, False), (CERTIFICATE_DAYS + 0.5, False), (CERTIFICATE_DAYS - 0.5, True), (ENDED, True)],
)
def test_authority_renewed_before_a_certificate_outlasts_it(days: float, changes: bool) -> None:
    old, new, _ = updated_authority(days)
    assert (new != old) is changes
    if changes:
        assert days_left(new) == AUTHORITY_DAYS - 1


def test_authority_replaced_for_another_name() -> None:
    certificate, _ = make_authority("test", 1)
    found = secrets._AuthorityProvider().diff(
        "authority", {"common_name": "test", "certificate": certificate}, {"common_name": "other"}
    )
    assert found.changes
    assert found.replaces == ["common_name"]


@given(st.integers(0, AUTHORITY_DAYS))
def test_certificate_never_outlasts_its_authority(days: int) -> None:
    _, authority, key = updated_authority(days)
    certificate, _ = issue_certificate(authority, key, "a0", [], ["client"])
    assert days_left(certificate) <= days_left(authority)


@pytest.mark.parametrize("days", [400, ENDED], ids=["near its end", "ended"])
def test_authority_renewed_verifies_old_and_new_certificates(days: float, tmp_path: Path) -> None:
    old, new, key = updated_authority(days)
    before, _ = issue_certificate(old, key, "a0", ["a0"], ["server"])
    after, _ = issue_certificate(new, key, "a0", ["a0"], ["server"])
    for name, text in (("old", old), ("new", new), ("before", before), ("after", after)):
        (tmp_path / name).write_text(text)
    # The old authority, once ended, is trusted by nobody.
    for authority in ("old", "new") if days > 0 else ("new",):
        for certificate in ("before", "after"):
            verify: list[str | Path] = [
                "-x509_strict",
                "-CAfile",
                tmp_path / authority,
                "-verify_hostname",
                "a0",
            ]
            assert openssl("verify", *verify, tmp_path / certificate).endswith("OK\n")


def test_authority_renewed_changes_validity_and_serial_only() -> None:
    old, key = make_authority("test", 1)
    first, second = (
        x509.load_pem_x509_certificate(text.encode()) for text in (old, renew_authority(old, key))
    )
    assert first.subject == second.subject
    assert first.public_key() == second.public_key()
    assert list(first.extensions) == list(second.extensions)
    assert first.serial_number != second.serial_number


def test_token_and_ssh_key_are_random(tmp_path: Path) -> None:
    tokens = {(secrets._TokenProvider().create({"size": 32}).outs or {})["value"] for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == 64 for token in tokens)
    pair = secrets._SshKeyProvider().create({}).outs
    assert pair is not None
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(pair["private_key"])
    derived = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True)
    assert derived.stdout.strip() == pair["public_key"]


def test_diff_ignores_another_provider() -> None:
    """Without a diff of theirs Pulumi compares inputs, the pickled provider too, and updates to nothing."""
    before, after = {"__provider": "old"}, {"__provider": "new"}
    # So it is in the state: the size is an input alone.
    token = {"value": "0" * 64, **before}
    assert (
        secrets._TokenProvider().diff("token", token, {"size": 32, "value": None, **after}).changes is False
    )
    key = {"private_key": "PEM", "public_key": "ssh-ed25519 AAAA", **before}
    news = {"private_key": None, "public_key": None, **after}
    assert secrets._SshKeyProvider().diff("ssh-key", key, news).changes is False


def test_token_replaced_for_another_size() -> None:
    found = secrets._TokenProvider().diff("token", {"value": "0" * 64}, {"size": 16, "value": None})
    assert found.changes
    assert found.replaces == ["size"]


def test_certificate_valid_for_a_slow_clock() -> None:
    certificate = x509.load_pem_x509_certificate(make_authority("test")[0].encode())
    assert certificate.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
