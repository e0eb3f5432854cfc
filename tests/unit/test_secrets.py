"""Secrets: certificates that TLS stacks accept, renewed in time, and files that OpenSSH reads."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from components import secrets
from components.secrets import days_left, issue_certificate, make_authority


def openssl(*args: str | Path) -> str:
    return subprocess.run(["openssl", *args], capture_output=True, text=True, check=True).stdout


def test_openssl_verifies_a_certificate_for_its_addresses_and_names(tmp_path: Path) -> None:
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


def test_a_certificate_of_another_authority_is_not_accepted(tmp_path: Path) -> None:
    authority, _ = make_authority("test")
    certificate, _ = issue_certificate(*make_authority("test"), "a0", [], ["client"])
    (tmp_path / "ca").write_text(authority)
    (tmp_path / "crt").write_text(certificate)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", tmp_path / "ca", tmp_path / "crt")


def test_keys_match_their_certificates() -> None:
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


def test_days_left_are_whole_days_to_the_end() -> None:
    authority, key = make_authority("test")
    certificate, _ = issue_certificate(authority, key, "a0", [], ["client"])
    assert days_left(certificate) == secrets.CERTIFICATE_DAYS - 1
    assert days_left(authority) == secrets.AUTHORITY_DAYS - 1


def test_a_certificate_is_renewed_when_its_end_comes_near(monkeypatch: pytest.MonkeyPatch) -> None:
    authority, key = make_authority("test")
    provider = secrets._CertificateProvider()
    subject = {
        "authority": authority,
        "authority_key": key,
        "common_name": "a0",
        "names": ["a0"],
        "usages": ["server"],
    }
    made = provider.create(subject).outs
    assert made is not None
    assert not provider.diff("a0", made, subject).changes
    assert provider.diff("a0", made, {**subject, "names": ["a0", "a1"]}).changes
    monkeypatch.setattr(secrets, "CERTIFICATE_DAYS", secrets.RENEW_DAYS - 1)
    near_its_end = provider.create(subject).outs
    assert near_its_end is not None
    assert provider.diff("a0", near_its_end, subject).changes


def test_tokens_and_keys_differ_each_time_and_openssh_reads_them(tmp_path: Path) -> None:
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


def test_a_secret_stays_when_only_its_provider_is_another() -> None:
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


def test_a_token_of_another_size_is_another_token() -> None:
    found = secrets._TokenProvider().diff("token", {"value": "0" * 64}, {"size": 16, "value": None})
    assert found.changes
    assert found.replaces == ["size"]


def test_a_certificate_is_valid_for_a_host_whose_clock_lags_a_little() -> None:
    certificate = x509.load_pem_x509_certificate(make_authority("test")[0].encode())
    assert certificate.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
