"""SSH host keys of host containers: derived from one secret, so that no host has a resource for its key.

The keys are not a resource with a key for each host either: when such a resource gets a host, a preview does
not know its outputs, and would show the replacement of all containers.
"""

import base64
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KIND = b"ssh-ed25519"


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair (RFC 8709) in OpenSSH's formats."""

    private_key: str
    """The private key, PEM."""
    public_key: str
    """The public key: `ssh-ed25519 AAAA...`, without a comment."""


def derive_key(secret: str, host: str) -> KeyPair:
    """Derive the key of a host by HKDF (RFC 5869); the same secret and host give the same text.

    Args:
        secret: The lab's secret, of at least 32 random bytes.
        host: The host's name.
    """
    derivation = HKDF(hashes.SHA256(), 32, salt=None, info=f"calico-lab ssh host key {host}".encode())
    seed = derivation.derive(secret.encode())
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    blob = _string(KIND) + _string(public)
    return KeyPair(_render_private(seed, public, blob), f"{KIND.decode()} {base64.b64encode(blob).decode()}")


def _render_private(seed: bytes, public: bytes, blob: bytes) -> str:
    """Render openssh-key-v1, without encryption (OpenSSH's PROTOCOL.key).

    `cryptography` would put a random number into it, by which OpenSSH recognizes a wrong passphrase. Then the
    text, and so the container, would change in each run.
    """
    check = bytes(8)
    comment = b""
    section = check + _string(KIND) + _string(public) + _string(seed + public) + _string(comment)
    section += bytes(range(1, 1 + -len(section) % 8))
    header = b"openssh-key-v1\0" + _string(b"none") + _string(b"none") + _string(b"") + struct.pack(">I", 1)
    encoded = base64.encodebytes(header + _string(blob) + _string(section)).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{encoded}-----END OPENSSH PRIVATE KEY-----\n"


def _string(value: bytes) -> bytes:
    """A string of the SSH protocol (RFC 4251, section 5)."""
    return struct.pack(">I", len(value)) + value
