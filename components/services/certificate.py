"""Checks of the operator's certificate and key for HTTPS, before anything is changed. Pure."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from components.shared.section import listed

RSA_BITS = 2048
"""OpenSSL's default security level refuses shorter keys (SSL_CTX_set_security_level(3))."""
_CERTIFICATE = "must be the path, seen from the project's folder, of a PEM file with the certificate"
_KEY = "must be the path, seen from the project's folder, of a PEM file with the certificate's private key"


def check_certificate(path: Path | None, name: str | None) -> None:
    """Check that a server can use a certificate.

    Args:
        path: The file with the certificate, and the authorities between it and the root.
        name: The DNS name that visitors use, if it is known.

    Raises:
        ValueError: The reason why it cannot, and what is accepted.
    """
    certificate = _leaf(_read(path, _CERTIFICATE))
    now = dt.datetime.now(dt.UTC)
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < since:
        raise ValueError(f"is not valid before {since:%Y-%m-%d %H:%M} UTC; {_CERTIFICATE}")
    if now > until:
        raise ValueError(f"has expired on {until:%Y-%m-%d %H:%M} UTC; renew it")
    if name and not any(_covers(pattern.lower(), name) for pattern in names_of(certificate)):
        names = listed(names_of(certificate)) or "no name"
        raise ValueError(f"is for {names}, and not for proxy.name {name}; {_CERTIFICATE} of that name")


def check_key(path: Path | None, certificate: Path) -> None:
    """Check that a server can use a private key.

    Args:
        path: The file with the key.
        certificate: The file with the certificate, which is usable.

    Raises:
        ValueError: The reason why it cannot, and what is accepted.
    """
    text = _read(path, _KEY)
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError(
            "has a passphrase, which nobody could type on the host; 'openssl pkey' writes it without one"
        ) from None
    except ValueError:
        raise ValueError(f"has no private key in PEM; {_KEY}") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_BITS:
        raise ValueError(f"is an RSA key of {key.key_size} bits; OpenSSL needs at least {RSA_BITS}")
    if _public(key.public_key()) != _public(_leaf(certificate.read_bytes()).public_key()):
        raise ValueError(f"is not the key of the certificate {certificate}; {_KEY}")


def _read(path: Path | None, accepted: str) -> bytes:
    if path is None:
        raise ValueError(f"is required with https: own; {accepted}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); {accepted}") from None


def _leaf(text: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(text)[0]
    except ValueError:
        raise ValueError(f"has no certificate in PEM; {_CERTIFICATE}") from None


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _covers(pattern: str, name: str) -> bool:
    # RFC 6125, section 6.4.3: a wildcard stands for one whole label, the first.
    _, _, rest = name.partition(".")
    return pattern in (name, f"*.{rest}")


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
