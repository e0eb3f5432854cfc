"""HTTPS: the certificate, its renewal, the redirect from HTTP, and HSTS."""

import socket
import ssl
import warnings
from collections.abc import Iterator

import pytest
import requests

from components.shared.secrets import issue_certificate, make_authority
from tests.unit.proxy.notebooks import Start
from tests.unit.proxy.running import ADDRESS, Proxy, until
from tests.unit.proxy.test_routes import route

FILE = "tls/tls.pem"
AUTHORITY = make_authority("the lab")


def pem() -> str:
    certificate, key = issue_certificate(*AUTHORITY, "proxy", [ADDRESS, "a2"], ["server"])
    return key + certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    file.write_text(AUTHORITY[0])
    return str(file)


@pytest.fixture(scope="module", params=["lab", "own"])
def secure(
    image: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Proxy]:
    """A proxy with HTTPS, which passes the image's health check."""
    made = Proxy(tmp_path_factory.mktemp("proxy"), image, https=request.param)
    made.routes([])
    made.place(FILE, pem())
    with made.started():
        yield made


def connect(proxy: Proxy, authority: str, *, latest: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=authority)
    if latest:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, latest
        # OpenSSL's own lowest level, so that the proxy is what refuses.
        context.set_ciphers("ALL:@SECLEVEL=0")
    plain = socket.create_connection((ADDRESS, proxy.port), timeout=10)
    return context.wrap_socket(plain, server_hostname=ADDRESS)


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def serial(connection: ssl.SSLSocket) -> str:
    certificate = connection.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


def test_https_serves_notebooks(secure: Proxy, start: Start, authority: str) -> None:
    secure.routes([route("alice", start("on"))])
    answer = secure.get("/alice/lab", verify=authority)
    assert answer.status_code == 200
    assert "x-forwarded-proto: https\r\n" in answer.text.lower()


def test_https_hsts_with_a_certificate_of_ones_own_alone(secure: Proxy, start: Start, authority: str) -> None:
    secure.routes([route("alice", start("on"))], start_page=True)
    expected = "max-age=2592000" if secure.https == "own" else None
    for path in ("/", "/alice/lab", "/nobody"):
        assert secure.get(path, verify=authority).headers.get("Strict-Transport-Security") == expected


@pytest.mark.parametrize(("version", "taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_https_versions(secure: Proxy, authority: str, version: str, taken: bool) -> None:
    latest = ssl.TLSVersion[version]
    if taken:
        with connect(secure, authority, latest=latest) as connection:
            assert connection.version() == version.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
            connect(secure, authority, latest=latest)


@pytest.mark.parametrize(
    ("host", "path", "location"),
    [
        ("lab.example:8080", "/alice/lab?x=1", "https://lab.example:{port}/alice/lab?x=1"),
        ("lab.example", "/", "https://lab.example:{port}/"),
        ("lab.example/evil?", "/", "https://127.0.0.1:{port}/"),
    ],
)
def test_https_redirect(secure: Proxy, host: str, path: str, location: str) -> None:
    url = f"http://{ADDRESS}:{secure.ports[2]}{path}"
    answer = requests.get(url, headers={"Host": host}, allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (308, location.format(port=secure.port))
    # A permanent redirect that a browser keeps would outlast HTTPS.
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in answer.headers


def test_https_takes_a_new_certificate_and_keeps_connections(
    secure: Proxy, start: Start, authority: str
) -> None:
    secure.routes([route("alice", start("on"))])
    with connect(secure, authority) as former:
        first = serial(former)
        former.sendall(
            b"GET /alice/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        until(lambda: b"GET /alice/ws" in former.recv(65536))
        secure.place(FILE, pem())
        with connect(secure, authority) as latter:
            assert serial(latter) != first
            latter.sendall(head("/alice/"))
            assert latter.recv(65536).startswith(b"HTTP/1.1 200 OK")
        former.sendall(b"still open")
        assert former.recv(65536) == b"still open"


def test_https_keeps_the_former_certificate_where_the_new_one_is_broken(
    secure: Proxy, authority: str
) -> None:
    with connect(secure, authority) as connection:
        first = serial(connection)
    key = pem().partition("-----BEGIN CERTIFICATE")[0]
    certificate = pem().removeprefix(pem().partition("-----BEGIN CERTIFICATE")[0])
    for broken in ("", "-----BEGIN", key + certificate):
        secure.place(FILE, broken)
        assert "not applied" in secure.lines_of(FILE)[-1]
        with connect(secure, authority) as connection:
            assert serial(connection) == first
    secure.place(FILE, pem())
    with connect(secure, authority) as connection:
        assert serial(connection) != first
