"""The `etcd3` client in a process of its own.

etcd3 0.12 (2020) cannot be imported beside protobuf 4 or newer, unless protobuf's slow implementation is
chosen before Python starts; the tests' own process has protobuf for Pulumi.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workspace.outputs import PROJECT


@dataclass(frozen=True)
class Credentials:
    """Files with which a client proves itself to etcd."""

    authority: Path
    certificate: Path
    key: Path


def put(endpoint: str, credentials: Credentials, key: str, value: str) -> None:
    """Write a key at one member."""
    _call(endpoint, credentials, "put", key, value)


def get(endpoint: str, credentials: Credentials, key: str) -> str:
    """Read a key at one member; empty where there is none."""
    return _call(endpoint, credentials, "get", key)


def delete(endpoint: str, credentials: Credentials, key: str) -> None:
    """Remove a key at one member."""
    _call(endpoint, credentials, "delete", key)


def _call(endpoint: str, credentials: Credentials, *words: str) -> str:
    files = [str(file) for file in (credentials.authority, credentials.certificate, credentials.key)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.live.etcd_client", endpoint, *files, *words],
        cwd=PROJECT,
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, f"etcd3 at {endpoint}: {' '.join(words)}: {done.stderr}"
    return done.stdout


def _main(endpoint: str, authority: str, certificate: str, key: str, *words: str) -> None:
    import etcd3  # noqa: PLC0415 - only in this process can it be imported

    url = urlsplit(endpoint)
    client = etcd3.client(
        host=url.hostname, port=url.port, ca_cert=authority, cert_cert=certificate, cert_key=key, timeout=10
    )
    match words:
        case ("put", name, value):
            client.put(name, value)
        case ("get", name):
            value, _ = client.get(name)
            sys.stdout.write((value or b"").decode())
        case ("delete", name):
            client.delete(name)


if __name__ == "__main__":
    _main(*sys.argv[1:])
