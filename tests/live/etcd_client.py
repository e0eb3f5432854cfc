"""The `etcd3` client in a process of its own.

etcd3 0.12 (2020) cannot be imported beside protobuf 4 or newer, unless protobuf's slow implementation is
chosen before Python starts; the tests' own process has protobuf for Pulumi.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any
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


@dataclass(frozen=True)
class Writer:
    """A client that writes keys `<prefix>/<number>` all the time, in a process of its own."""

    record: Path
    """A line for each write that the member has acknowledged."""

    @property
    def acknowledged(self) -> set[str]:
        """The numbers of the writes that were acknowledged so far."""
        return set(self.record.read_text().split())


@contextmanager
def writer(endpoint: str, credentials: Credentials, prefix: str, record: Path) -> Iterator[Writer]:
    """Write at one member until the end of the block; a write that fails is not repeated."""
    with (
        record.open("w") as output,
        subprocess.Popen(
            _command(endpoint, credentials, "write", prefix),
            cwd=PROJECT,
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=output,
        ) as process,
    ):
        try:
            yield Writer(record)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(timeout=30)
    assert process.returncode == 0


_ENVIRONMENT = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}


def _command(endpoint: str, credentials: Credentials, *words: str) -> list[str]:
    files = [str(file) for file in (credentials.authority, credentials.certificate, credentials.key)]
    return [sys.executable, "-m", "tests.live.etcd_client", endpoint, *files, *words]


def _call(endpoint: str, credentials: Credentials, *words: str) -> str:
    done = subprocess.run(
        _command(endpoint, credentials, *words),
        cwd=PROJECT,
        env=_ENVIRONMENT,
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
        case ("write", prefix):
            over = Event()
            Thread(target=_until_input_ends, args=(over,), daemon=True).start()
            _write(client, prefix, over)


def _until_input_ends(over: Event) -> None:
    sys.stdin.read()
    over.set()


def _write(client: Any, prefix: str, over: Event) -> None:  # noqa: ANN401 - the library has no types
    number = 0
    while not over.is_set():
        number += 1
        try:
            client.put(f"{prefix}/{number}", "written")
        except Exception as error:  # Whatever it is, the write was not acknowledged.
            print(f"write {number}: {error!r}", file=sys.stderr)
        else:
            print(number, flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    _main(*sys.argv[1:])
