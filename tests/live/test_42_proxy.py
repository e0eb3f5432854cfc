"""The proxy over HTTPS: switched on and off in a running lab, and renewed without a restart."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import websocket

from bench import kernel
from components.hosts import remote
from diagnosis import web
from tests.live.look import CONTAINERS, everywhere, healthy
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import Outputs

HTTPS = {"proxy.https": "lab", "proxy.startPage": True, "proxy.secondHost": "a0"}


@pytest.fixture(scope="module", autouse=True)
def _original(program: Program) -> Iterator[None]:
    """The tracked config again at the end, whatever has become of the tests."""
    yield
    program.up(seconds=180)


@pytest.fixture(scope="module")
def secure(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """The outputs of the lab with HTTPS."""
    program.up(program.changed_config(tmp_path_factory.mktemp("config"), HTTPS))
    return healthy(program)


@pytest.fixture(scope="module")
def authority(secure: Outputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the lab's CA, from the output."""
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    file.write_text(secure.proxy_authority)
    return file


@pytest.mark.timeout(180)
def test_https_runs_a_cell(secure: Outputs, authority: Path, token: str) -> None:
    assert secure.proxy_url == "https://172.16.6.231:8888"
    assert kernel.run_cell(secure.proxy_url, token, "print(6*7)", authority) == "42\n"


def answers(secure: Outputs) -> None:
    """Fail where the first proxy does not answer."""
    answer = web.get(secure.proxy_url, secure.proxy_authority)
    assert answer.status == 200, answer


@pytest.mark.timeout(180)
def test_https_second_proxy_without_the_first(secure: Outputs, authority: Path, token: str) -> None:
    assert secure.proxy_urls == (secure.proxy_url, "https://172.16.6.44:8888")
    assert remote.run(secure.ssh["a2"], "docker container stop calico-lab-proxy").status == 0
    try:
        assert kernel.run_cell(secure.proxy_urls[1], token, "print(6*7)", authority) == "42\n"
    finally:
        assert remote.run(secure.ssh["a2"], "docker container start calico-lab-proxy").status == 0
        eventually(lambda: answers(secure), 20)


def test_https_needs_the_authority(secure: Outputs) -> None:
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        requests.get(secure.proxy_url, timeout=10)


def test_https_start_page_and_redirect(secure: Outputs, authority: Path) -> None:
    host = urlsplit(secure.proxy_url).hostname

    def leads_to_it() -> None:
        page = requests.get(f"http://{host}:8080/", verify=str(authority), timeout=10)
        assert page.url == f"{secure.proxy_url}/"
        assert '<a href="/lab">notebook</a> <span>on</span>' in page.text
        assert "Strict-Transport-Security" not in page.headers

    # A notebook that answers late is not on.
    eventually(leads_to_it, 30, pause=3)


def test_https_websocket_from_another_origin(secure: Outputs, authority: Path, token: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        kernel.run_cell(secure.proxy_url, token, "1", authority, origin="https://elsewhere.example")


@pytest.mark.timeout(240)
def test_https_certificate_renewed_without_a_restart(
    secure: Outputs, program: Program, tmp_path: Path
) -> None:
    address = urlsplit(secure.proxy_url)

    def presented() -> str:
        return ssl.get_server_certificate((str(address.hostname), address.port or 0))

    def is_renewed() -> None:
        assert presented() != before

    before, containers = presented(), everywhere(secure, CONTAINERS)
    # Another name is another certificate; the URL has it, so the controller does not ask by it.
    changes = {**HTTPS, "proxy.name": "lab.example.org"}
    program.up(program.changed_config(tmp_path, changes))
    eventually(is_renewed, 10)
    names = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=presented(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DNS:lab.example.org" in names.stdout
    assert everywhere(secure, CONTAINERS) == containers
