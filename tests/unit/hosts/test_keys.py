"""Host keys: derived from the lab's secret, in OpenSSH's formats."""

import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from components.hosts.keys import derive_key

SECRET = "0f" * 32


def test_derive_key_gives_a_host_the_same_key_each_time() -> None:
    assert derive_key(SECRET, "a0") == derive_key(SECRET, "a0")


def test_derive_key_gives_each_host_and_each_lab_another_key() -> None:
    keys = {derive_key(secret, host).public_key for secret in (SECRET, "1e" * 32) for host in ("a0", "a1")}
    assert len(keys) == 4


def test_derive_key_is_read_by_openssh(tmp_path: Path) -> None:
    key = derive_key(SECRET, "a0")
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(key.private_key)
    printed = subprocess.run(
        ["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == key.public_key.split()


def test_derive_key_is_read_by_cryptography() -> None:
    key = load_ssh_private_key(derive_key(SECRET, "a0").private_key.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
