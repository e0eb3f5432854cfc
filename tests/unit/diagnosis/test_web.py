"""What is made of whatever answers at a URL, by real connections."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from diagnosis import web


@contextmanager
def server(said: bytes) -> Iterator[str]:
    """The URL of a server that says the same to whoever comes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", "HTTP 200"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "HTTP 403"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "no HTTP: SSH-2.0-OpenSSH_9.2p1"),
        (b"hello\n", "no HTTP: hello"),
        (b"", "Remote end closed connection without response"),
    ],
)
def test_get_answer(said: bytes, told: str) -> None:
    with server(said) as url:
        assert str(web.get(url)) == told


def test_get_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert "Connection refused" in str(web.get(url))
