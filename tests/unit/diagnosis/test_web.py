"""What is made of whatever answers at a URL, by real connections."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from components.shared.secrets import issue_certificate, make_authority
from diagnosis import web


@contextmanager
def server(said: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that says the same to whoever comes, and hangs up; with a context, by TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            plain, _ = listener.accept()
            # A client that does not trust the server hangs up first.
            with plain, suppress(ssl.SSLError):
                connection = context.wrap_socket(plain, server_side=True) if context else plain
                with connection:
                    connection.recv(4096)
                    connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{listener.getsockname()[1]}/api"


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


@pytest.mark.parametrize(
    ("trusted", "told"), [("authority", "200"), ("certificate", "200"), ("none", "CERTIFICATE_VERIFY_FAILED")]
)
def test_get_https(trusted: str, told: str, tmp_path: Path) -> None:
    authority = make_authority("the lab")
    certificate, key = issue_certificate(*authority, "proxy", ["127.0.0.1"], ["server"])
    (tmp_path / "tls.pem").write_text(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.pem")
    authorities = {"authority": authority[0], "certificate": certificate, "none": ""}
    with server(b"HTTP/1.0 200 OK\r\n\r\n", context) as url:
        assert told in str(web.get(url, authorities[trusted]))
