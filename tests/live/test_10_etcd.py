"""etcd: all members are healthy, serve mutual TLS only, and share their data."""

import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.hosts import remote
from tests.live import etcd_client
from tests.live.etcd_client import Credentials
from workspace.outputs import Outputs

KEY = "/calico-lab-test/live"
PKI = "/etc/calico-lab/pki"


@pytest.fixture(scope="module")
def credentials(outputs: Outputs, tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """A client's credentials, fetched from the host that has them."""
    folder = tmp_path_factory.mktemp("pki")
    ssh = next(iter(outputs.ssh.values()))

    def fetch(name: str) -> Path:
        answer = remote.run(ssh, f"cat {PKI}/{name}")
        assert answer.status == 0, answer.error
        file = folder / name
        file.touch(mode=0o600)
        file.write_text(answer.text)
        return file

    return Credentials(fetch("etcd-ca.crt"), fetch("calico.crt"), fetch("calico.key"))


def health(endpoint: str, context: ssl.SSLContext | None) -> int:
    """Ask a member's /health, by TLS where there is a context; return the HTTP status."""
    url = urlsplit(endpoint)
    assert url.hostname
    connection = (
        http.client.HTTPSConnection(url.hostname, url.port, timeout=10, context=context)
        if context
        else http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    )
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def test_etcd_members_healthy_over_tls(outputs: Outputs) -> None:
    script = "set -a; . /etc/calico-lab/etcd/etcdctl.env; etcdctl endpoint health 2>&1"
    for host in outputs.hosts:
        answer = remote.run(outputs.ssh[host], script)
        assert answer.status == 0, answer.text
        for endpoint in outputs.etcd_endpoints:
            assert endpoint.startswith("https://")
            assert f"{endpoint} is healthy" in answer.text


def test_etcd_client_with_certificate(outputs: Outputs, credentials: Credentials) -> None:
    context = ssl.create_default_context(cafile=str(credentials.authority))
    context.load_cert_chain(credentials.certificate, credentials.key)
    for endpoint in outputs.etcd_endpoints:
        assert health(endpoint, context) == 200


def test_etcd_client_without_certificate(outputs: Outputs, credentials: Credentials) -> None:
    context = ssl.create_default_context(cafile=str(credentials.authority))
    for endpoint in outputs.etcd_endpoints:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            health(endpoint, context)


def test_etcd_client_without_tls(outputs: Outputs) -> None:
    for endpoint in outputs.etcd_endpoints:
        try:
            status = health(endpoint, None)
        except (ConnectionError, http.client.HTTPException):
            continue
        assert status == 400, f"{endpoint} answers plain HTTP"


def test_etcd_peer_without_certificate(outputs: Outputs, credentials: Credentials) -> None:
    context = ssl.create_default_context(cafile=str(credentials.authority))
    for endpoint in outputs.etcd_endpoints:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            health(f"https://{urlsplit(endpoint).hostname}:2380", context)


def test_etcd_members_share_data(outputs: Outputs, credentials: Credentials) -> None:
    writer, *readers = outputs.etcd_endpoints
    etcd_client.put(writer, credentials, KEY, "written at one")
    try:
        for reader in readers:
            assert etcd_client.get(reader, credentials, KEY) == "written at one"
    finally:
        etcd_client.delete(writer, credentials, KEY)
    assert etcd_client.get(readers[0], credentials, KEY) == ""
