"""Public host keys of existing hosts: from the config, or from the operator's known_hosts file."""

import subprocess
from pathlib import Path

from pulumi import RunError

from components.hosts.config import ExistingMember


def host_key(member: ExistingMember, known_hosts: Path) -> str:
    """The public host key of a host: the one in the config, else the one in known_hosts."""
    return member.host_key or pinned_key(str(member.address), member.port, known_hosts)


def pinned_key(address: str, port: int, known_hosts: Path) -> str:
    """Find the public key of a host in a known_hosts file, hashed names included.

    Args:
        address: The host's address.
        port: The port of its SSH.
        known_hosts: The file, sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT".

    Returns:
        `<type> <base64>`; an Ed25519 key where there are several.

    Raises:
        RunError: The file has no key of the host.
    """
    name = address if port == 22 else f"[{address}]:{port}"
    path = known_hosts.expanduser()
    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, text=True, check=False
    )
    keys = [
        line.split()[1:3] for line in found.stdout.splitlines() if line and not line.startswith(("#", "@"))
    ]
    if not keys:
        raise RunError(
            f"the host key of {name} is not in {path}; log in once with ssh and compare the fingerprint, "
            f"or give it as hostKey (ssh-keyscan -p {port} {address} shows it)"
        )
    keys.sort(key=lambda key: key[0] != "ssh-ed25519")
    return " ".join(keys[0])
