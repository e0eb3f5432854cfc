"""Downloads: whether a file is available is known in time, and only the pinned file is accepted."""

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain import download
from toolchain.download import Download
from toolchain.errors import ToolchainError

CONTENT = b"the file"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/file" else 404)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def of(url: str, content: bytes = CONTENT) -> Download:
    return Download("1.0", url, hashlib.sha256(content).hexdigest())


def test_fetch(server: str, tmp_path: Path) -> None:
    assert of(f"{server}/file").answers()
    of(f"{server}/file").fetch(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_answers_without_the_file(server: str) -> None:
    assert not of(f"{server}/other").answers()


def test_answers_asks_once_in_a_run(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = of(f"{server}/file")
    assert file.answers()
    monkeypatch.setattr(Download, "_ask", lambda _: False)
    assert file.answers()


def test_answers_with_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not of(f"http://127.0.0.1:{silent.getsockname()[1]}/file").answers()
        assert time.monotonic() - start < 2


def test_fetch_with_another_checksum_is_an_error(server: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="is not the pinned file: its SHA-256 is"):
        of(f"{server}/file", b"what was pinned").fetch(tmp_path / "file")


def test_fetch_without_the_file_names_the_next_step(server: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"404.*run `make setup` again"):
        of(f"{server}/other").fetch(tmp_path / "file")


@pytest.mark.parametrize("name", ["pulumi", "docker", "command"])
def test_downloads_json_has_https_urls_and_whole_checksums(name: str) -> None:
    entry = Download.of(name)
    assert entry.url.startswith("https://")
    assert entry.version in entry.url
    assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == hashlib.sha256().digest_size


def test_download_of_an_architecture_without_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"machine": "riscv64"}))
    assert Download.of("pulumi").sha256 is None
