"""Plugins: official ones for an official CLI, the lab's own where these are not available."""

import http.server
import io
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain import cache, plugins, python_env
from toolchain.download import Download
from toolchain.errors import CommandError
from toolchain.golang import Go
from toolchain.patches import PatchedSource
from toolchain.progress import Step
from toolchain.pulumi import Cli

ROOT = Path(__file__).parents[3]
Installs = list[tuple[str, ...]]
ON_PATH = Cli(Path("/usr/bin"), "v3.250.0 from PATH", official=True, on_path=True)
DOWNLOADED = Cli(Path("/cache/pulumi-official"), "v3.255.0, official", official=True)
BUILT = Cli(Path("/cache/pulumi"), "v3.259.0, built", official=False)
OFFICIAL = [
    ("plugin", "install", "--exact", "resource", "docker", "5.2.0"),
    ("plugin", "install", "--exact", "resource", "command", "1.2.1"),
]


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> Installs:
    """The recorded commands of Pulumi, none of which is run."""
    commands: Installs = []
    monkeypatch.setattr(
        Step, "run", lambda _step, _what, *command, **_: commands.append(tuple(map(str, command[1:])))
    )
    return commands


@pytest.fixture(autouse=True)
def builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "apply_patches", lambda *_: PatchedSource(Path("/patched")))
    monkeypatch.setattr(Go, "build", lambda *_, **__: None)
    monkeypatch.setattr(python_env, "create", lambda *_: None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's own PULUMI_HOME."""
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(plugins.OVERRIDES, raising=False)
    return tmp_path / "home"


def host(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
    monkeypatch.setattr(Download, "answers", lambda _: answers)


def test_obtain_keeps_installed_official_plugins(
    step: Step, go: Go, home: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=False)
    for name in ("resource-docker-v5.2.0", "resource-command-v1.2.1"):
        (home / "plugins" / name).mkdir(parents=True)
    assert plugins.obtain(step, ON_PATH, go, Path("uv")) is None
    assert not installs
    assert step.result == f"docker 5.2.0, command 1.2.1: official, in {home}"


def test_obtain_with_an_official_cli_on_path_installs_missing_plugins(
    step: Step, go: Go, home: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    (home / "plugins" / "resource-docker-v5.2.0").mkdir(parents=True)
    assert plugins.obtain(step, ON_PATH, go, Path("uv")) is None
    assert installs == OFFICIAL[1:]


def test_obtain_with_a_downloaded_cli_installs_official_plugins_in_the_cache(
    step: Step, go: Go, home: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    own = plugins.obtain(step, DOWNLOADED, go, Path("uv"))
    assert own
    assert own.is_relative_to(cache.root())
    assert installs == OFFICIAL
    assert step.result == f"docker 5.2.0, command 1.2.1: official, in {own}"
    assert not home.exists()
    assert plugins.obtain(step, DOWNLOADED, go, Path("uv")) == own
    assert installs == OFFICIAL, "nothing is installed twice"
    assert (own / plugins.LOGS).is_file(), "Pulumi would write a log of each command"


@pytest.mark.parametrize(
    ("cli", "because"),
    [
        pytest.param(ON_PATH, "get.pulumi.com does not answer within 3 s", id="official-on-path"),
        pytest.param(DOWNLOADED, "get.pulumi.com does not answer within 3 s", id="official-by-download"),
        pytest.param(BUILT, "Pulumi is built here too", id="built"),
    ],
)
def test_obtain_without_the_host_installs_own_plugins_in_the_cache(
    *,
    cli: Cli,
    because: str,
    step: Step,
    go: Go,
    home: Path,
    installs: Installs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host(monkeypatch, answers=False)
    own = plugins.obtain(step, cli, go, Path("uv"))
    assert own
    assert own.is_relative_to(cache.root())
    assert (own / plugins.LOGS).is_file(), "Pulumi would write a log of each command"
    assert not home.exists()
    assert [command[3:6] for command in installs] == [
        ("docker", "5.2.0", "--file"),
        ("command", "1.2.1", "--file"),
    ]
    assert step.result == f"docker 5.2.0, command 1.2.1: the lab's own, because {because}"


def test_obtain_where_the_host_has_no_plugin_installs_own_plugins(
    step: Step, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    limits: list[float] = []

    def run(_step: Step, _what: str, *command: str | Path, limit_s: float = 0.0, **_: object) -> None:
        if "--exact" in command:
            limits.append(limit_s)
            raise CommandError("the whole log", "error: 404 HTTP error")

    monkeypatch.setattr(Step, "run", run)
    assert plugins.obtain(step, ON_PATH, go, Path("uv"))
    because = "because Pulumi cannot install the docker plugin (error: 404 HTTP error)"
    assert step.result.endswith(because)
    assert limits == [plugins.INSTALL_LIMIT_S]


class _DownloadHost(http.server.BaseHTTPRequestHandler):
    """Returns an archive with a plugin of the requested name."""

    def do_GET(self) -> None:
        plugin = self.path.removeprefix("/pulumi-resource-").partition("-v")[0]
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            program = tarfile.TarInfo(f"pulumi-resource-{plugin}")
            program.mode = 0o755
            archive.addfile(program, io.BytesIO())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content.getvalue())))
        self.end_headers()
        self.wfile.write(content.getvalue())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def download_host() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _DownloadHost) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def pulumi_program() -> Path:
    program = shutil.which("pulumi")
    assert program, "make test has Pulumi on PATH"
    return Path(program)


@pytest.mark.parametrize("on_path", [True, False])
def test_obtain_with_the_real_pulumi(
    *, on_path: bool, step: Step, go: Go, home: Path, download_host: str, pulumi_program: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(plugins.OVERRIDES, f".*={download_host}")
    cli = Cli(pulumi_program.parent, "official", official=True, on_path=on_path)
    own = plugins.obtain(step, cli, go, Path("uv"))
    folder = own or home
    assert (own is None) is on_path
    for name, version in {"docker": "5.2.0", "command": "1.2.1"}.items():
        program = folder / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"
        assert os.access(program, os.X_OK)
    assert step.result == f"docker 5.2.0, command 1.2.1: official, in {folder}"


def test_obtain_with_the_real_pulumi_and_a_host_that_refuses(
    step: Step, go: Go, home: Path, pulumi_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv(plugins.OVERRIDES, f".*=http://127.0.0.1:{port}")
    cli = Cli(pulumi_program.parent, "official", official=True, on_path=True)
    own = plugins.obtain(step, cli, go, Path("uv"))
    assert own
    assert own.is_relative_to(cache.root())
    assert "the lab's own, because Pulumi cannot install the docker plugin" in step.result
    assert "failed to download plugin" in step.result
    assert not list(home.glob("plugins/resource-docker*/pulumi-resource-docker"))


def test_own_plugin_is_installed_as_a_script_that_starts_the_artifact(
    step: Step, go: Go, installs: Installs
) -> None:
    plugins.obtain(step, BUILT, go, Path("uv"))
    wrapper = Path(installs[0][-1]) / "pulumi-resource-docker"
    program = wrapper.parent.parent / "bin" / "pulumi-resource-docker"
    assert wrapper.read_text() == f'#!/bin/sh\nexec {program} "$@"\n'
    assert wrapper.stat().st_mode & 0o111
    command = Path(installs[1][-1]) / "pulumi-resource-command"
    assert f"PYTHONPATH={command.parent.parent} " in command.read_text()


@pytest.mark.parametrize("name", plugins.NAMES)
def test_plugin_version_is_that_of_the_sdk(name: str) -> None:
    assert f"\npulumi-{name}=={Download.of(name).version} " in (ROOT / "requirements.lock").read_text()
