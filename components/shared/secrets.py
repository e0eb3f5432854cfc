"""The lab's generated secrets: tokens, SSH keys, a certificate authority and its certificates.

Each is generated once, at creation, on the controller, and is stored in the stack's state as a Pulumi secret.
None is ever in the arguments of a process or in a log. They are dynamic resources on `cryptography` and not
`pulumi_tls` and `pulumi_random`, because each of these is one more plugin to download, which many labs
cannot. Each provider has its own `diff`, because Pulumi's comparison includes the pickled provider, which
changes with the program.

A certificate is issued again when its subject changes, or when an update finds fewer than 60 days left. The
authority's certificate is renewed as soon as a certificate issued now would outlast it. Its key and subject
stay, so certificates from before the renewal are valid under both (RFC 5280, 6.1), and hosts may get them in
any order.

Certificates follow RFC 5280; keys are ECDSA P-256 for TLS and Ed25519 (RFC 8709) for SSH.
"""

import datetime as dt
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pulumi import Input, Output, ResourceOptions, dynamic

from components.shared.validity import AUTHORITY_DAYS, CERTIFICATE_DAYS, RENEW_DAYS

USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Hosts whose clocks are a little slow accept it at once.
        .not_valid_before(now - dt.timedelta(minutes=10))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def make_authority(common_name: str, days: float = AUTHORITY_DAYS) -> tuple[str, str]:
    """Create a self-signed authority, valid for some days; return its certificate and key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _self_signed(_name(common_name), key, days), _pem(key)


def renew_authority(authority: str, authority_key: str, days: float = AUTHORITY_DAYS) -> str:
    """Return a new certificate, PEM, for the same authority and key.

    Args:
        authority: The former certificate, PEM.
        authority_key: Its private key, PEM.
        days: Validity from now.
    """
    subject = x509.load_pem_x509_certificate(authority.encode()).subject
    return _self_signed(subject, _load(authority_key), days)


def _load(authority_key: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(authority_key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not an EC key")
    return key


def _self_signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float) -> str:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def issue_certificate(
    authority: str,
    authority_key: str,
    common_name: str,
    names: Sequence[str],
    usages: Sequence[str],
    *,
    days: float = CERTIFICATE_DAYS,
) -> tuple[str, str]:
    """Issue a leaf certificate for DNS names and IP addresses; return it and its private key, both PEM.

    Args:
        authority: The issuing certificate, PEM.
        authority_key: Its private key, PEM.
        common_name: The subject's CN; the user name of an etcd client.
        names: Subject alternative names: IP addresses and DNS names, told apart by their form.
        usages: Any of `server` and `client` (RFC 5280, 4.2.1.12).
        days: Validity from now.
    """
    issuer = x509.load_pem_x509_certificate(authority.encode())
    issuer_key = _load(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(common_name), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGES[usage] for usage in usages]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def days_left(certificate: str) -> int:
    """Whole days until a PEM certificate ends; negative when it has ended."""
    end = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    return (end - dt.datetime.now(dt.UTC)).days


class _TokenProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("token", {"value": secrets.token_hex(int(props["size"]))})

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        changed = len(olds.get("value") or "") != 2 * int(news["size"])
        return dynamic.DiffResult(changes=changed, replaces=["size"] if changed else [])


class Token(dynamic.Resource, module="calico-lab", name="Token"):
    """A random token of `size` bytes, as lower-case hex digits."""

    value: Output[str]
    """The token (secret)."""

    def __init__(self, name: str, size: int = 32, opts: ResourceOptions | None = None) -> None:
        super().__init__(_TokenProvider(), name, {"size": size, "value": None}, _secret(opts, "value"))


class _SshKeyProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        key = ed25519.Ed25519PrivateKey.generate()
        private_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public_key = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return dynamic.CreateResult(
            "ssh-key", {"private_key": private_key.decode(), "public_key": public_key.decode()}
        )

    def diff(self, _id: str, _olds: Mapping[str, Any], _news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=False)


class SshKey(dynamic.Resource, module="calico-lab", name="SshKey"):
    """An Ed25519 key pair in OpenSSH's formats."""

    private_key: Output[str]
    """The private key, OpenSSH PEM (secret)."""
    public_key: Output[str]
    """The public key: `ssh-ed25519 AAAA...`, without a comment."""

    def __init__(self, name: str, opts: ResourceOptions | None = None) -> None:
        props = {"private_key": None, "public_key": None}
        super().__init__(_SshKeyProvider(), name, props, _secret(opts, "private_key"))


class _AuthorityProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        certificate, private_key = make_authority(props["common_name"])
        return dynamic.CreateResult(
            "authority",
            {"common_name": props["common_name"], "certificate": certificate, "private_key": private_key},
        )

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        changed = olds["common_name"] != news["common_name"]
        renewed = days_left(olds["certificate"]) < CERTIFICATE_DAYS
        return dynamic.DiffResult(changes=changed or renewed, replaces=["common_name"] if changed else [])

    def update(self, _id: str, olds: Mapping[str, Any], _news: Mapping[str, Any]) -> dynamic.UpdateResult:
        certificate = renew_authority(olds["certificate"], olds["private_key"])
        return dynamic.UpdateResult(
            {
                "common_name": olds["common_name"],
                "certificate": certificate,
                "private_key": olds["private_key"],
            }
        )


class CertificateAuthority(dynamic.Resource, module="calico-lab", name="CertificateAuthority"):
    """The lab's certificate authority; its certificate is valid for ten years, and renewed in time."""

    certificate: Output[str]
    """The authority's certificate, PEM."""
    private_key: Output[str]
    """Its private key, PEM (secret)."""

    def __init__(self, name: str, common_name: str, opts: ResourceOptions | None = None) -> None:
        props = {"common_name": common_name, "certificate": None, "private_key": None}
        super().__init__(_AuthorityProvider(), name, props, _secret(opts, "private_key"))


_SUBJECT = ("authority", "common_name", "names", "usages")


class _CertificateProvider(dynamic.ResourceProvider):
    def _issue(self, props: Mapping[str, Any]) -> dict[str, Any]:
        certificate, private_key = issue_certificate(
            props["authority"], props["authority_key"], props["common_name"], props["names"], props["usages"]
        )
        return {**props, "certificate": certificate, "private_key": private_key}

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult(props["common_name"], self._issue(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        stale = any(olds.get(key) != news.get(key) for key in _SUBJECT)
        return dynamic.DiffResult(changes=stale or days_left(olds["certificate"]) < RENEW_DAYS)

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(self._issue(news))


class Certificate(dynamic.Resource, module="calico-lab", name="Certificate"):
    """A leaf certificate for TLS, issued again within 60 days of its end or when its subject changes."""

    certificate: Output[str]
    """The certificate, PEM."""
    private_key: Output[str]
    """Its private key, PEM (secret)."""

    def __init__(
        self,
        name: str,
        authority: CertificateAuthority,
        common_name: str,
        *,
        names: Sequence[Input[str]] = (),
        usages: Sequence[str] = ("server", "client"),
        opts: ResourceOptions | None = None,
    ) -> None:
        props = {
            "authority": authority.certificate,
            "authority_key": authority.private_key,
            "common_name": common_name,
            "names": list(names),
            "usages": list(usages),
            "certificate": None,
            "private_key": None,
        }
        super().__init__(_CertificateProvider(), name, props, _secret(opts, "private_key", "authority_key"))


def _secret(opts: ResourceOptions | None, *properties: str) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=list(properties)))
