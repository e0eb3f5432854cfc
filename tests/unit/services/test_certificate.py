"""The operator's certificate and key for HTTPS: what is refused before anything is changed."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from components.services.config import ProxyConfig
from components.shared.secrets import issue_certificate, make_authority

AUTHORITY = make_authority("somebody")
NAMES = ["lab.example.org", "*.example.net", "192.0.2.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that an operator could name."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = issue_certificate(*AUTHORITY, "lab.example.org", NAMES, ["server"])
    expired, expired_key = issue_certificate(*AUTHORITY, "lab", NAMES, ["server"], days=-0.001)
    future, future_key = in_the_future()
    nameless, nameless_key = issue_certificate(*AUTHORITY, "lab", [], ["server"])
    texts = {
        "certificate": certificate,
        "chain": certificate + AUTHORITY[0],
        "key": key,
        "expired": expired,
        "expired-key": expired_key,
        "future": future,
        "future-key": future_key,
        "nameless": nameless,
        "nameless-key": nameless_key,
        "text": "no PEM",
        "encrypted-key": encrypted(key),
        "short-key": short_key(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def in_the_future() -> tuple[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    since = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(since)
        .not_valid_after(since + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), written(key)


def written(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def short_key() -> str:
    return written(rsa.generate_private_key(65537, 1024))  # noqa: S505 - it is refused


def encrypted(key: str) -> str:
    loaded = serialization.load_pem_private_key(key.encode(), password=None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    ).decode()


def read(folder: Path, certificate: str | None, key: str | None, **others: str) -> ProxyConfig:
    files = {"certificate": certificate, "key": key}
    paths = {field: str(folder / name) for field, name in files.items() if name is not None}
    return ProxyConfig.model_validate({"https": "own", **paths, **others})


@pytest.mark.parametrize(
    ("certificate", "key", "name"),
    [
        ("certificate", "key", None),
        ("chain", "key", "lab.example.org"),
        ("certificate", "key", "Any.Example.NET"),
        ("nameless", "nameless-key", None),
    ],
)
def test_certificate_usable(folder: Path, certificate: str, key: str, name: str | None) -> None:
    config = read(folder, certificate, key, **({"name": name} if name else {}))
    assert (config.scheme, config.name) == ("https", name and name.lower())


@pytest.mark.parametrize(
    ("certificate", "key", "others", "field", "problem"),
    [
        (None, "key", {}, "certificate", "is required with https: own"),
        ("absent", "key", {}, "certificate", "cannot be read (No such file or directory)"),
        ("", "key", {}, "certificate", "cannot be read (Is a directory)"),
        ("text", "key", {}, "certificate", "has no certificate in PEM"),
        ("expired", "expired-key", {}, "certificate", "has expired on "),
        ("future", "future-key", {}, "certificate", "is not valid before "),
        (
            "certificate",
            "key",
            {"name": "other.example.org"},
            "certificate",
            "is for lab.example.org, *.example.net, 192.0.2.1, and not for proxy.name other.example.org",
        ),
        ("certificate", "key", {"name": "a.b.example.net"}, "certificate", "and not for proxy.name"),
        ("nameless", "nameless-key", {"name": "lab"}, "certificate", "is for no name"),
        ("certificate", None, {}, "key", "is required with https: own"),
        ("certificate", "absent", {}, "key", "cannot be read (No such file or directory)"),
        ("certificate", "text", {}, "key", "has no private key in PEM"),
        ("certificate", "certificate", {}, "key", "has no private key in PEM"),
        ("certificate", "encrypted-key", {}, "key", "has a passphrase"),
        ("certificate", "short-key", {}, "key", "is an RSA key of 1024 bits"),
        ("certificate", "expired-key", {}, "key", "is not the key of the certificate"),
    ],
)
def test_certificate_refused(  # noqa: PLR0917 - a table
    folder: Path,
    certificate: str | None,
    key: str | None,
    others: dict[str, str],
    field: str,
    problem: str,
) -> None:
    with pytest.raises(ValidationError) as refused:
        read(folder, certificate, key, **others)
    [error] = refused.value.errors()
    context = error["ctx"]
    assert context["path"] == field
    assert problem in context["problem"]
    named = certificate if field == "certificate" else key
    assert context["value"] == ("left out" if named is None else str(folder / named))


def test_certificate_is_not_read_without_https_own() -> None:
    assert ProxyConfig.model_validate({"https": "lab", "certificate": "absent"}).scheme == "https"
