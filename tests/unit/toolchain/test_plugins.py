"""Plugins: the person's official ones, else verified downloads, else the lab's own, in their own home."""

from pathlib import Path

import pytest

from toolchain import cache, plugins, python_env
from toolchain.download import Download
from toolchain.golang import Go
from toolchain.mend import Mended
from toolchain.progress import Step
from toolchain.pulumi import Cli

ROOT = Path(__file__).parents[3]


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of a Pulumi that does nothing."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        Step, "run", lambda _step, _what, *command, **_: commands.append(tuple(map(str, command[1:])))
    )
    return commands


@pytest.fixture(autouse=True)
def builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "mended", lambda *_: Mended(Path("/patched")))
    monkeypatch.setattr(Go, "build", lambda *_, **__: None)
    monkeypatch.setattr(python_env, "create", lambda *_: None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def host(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
    monkeypatch.setattr(Download, "answers", lambda _: answers)


ON_PATH = Cli(Path("/usr/bin"), "v3.250.0 from PATH", official=True, on_path=True)
BUILT = Cli(Path("/cache/pulumi"), "v3.259.0, built", official=False)


def test_official_plugins_that_are_installed_are_left_alone(
    step: Step, go: Go, home: Path, installs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=False)
    for name in ("resource-docker-v5.2.0", "resource-command-v1.2.1"):
        (home / "plugins" / name).mkdir(parents=True)
    assert plugins.obtain(step, ON_PATH, go, Path("uv")) is None
    assert not installs


def test_an_official_cli_installs_the_official_plugins_that_are_missing(
    step: Step, go: Go, home: Path, installs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    (home / "plugins" / "resource-docker-v5.2.0").mkdir(parents=True)
    assert plugins.obtain(step, ON_PATH, go, Path("uv")) is None
    assert installs == [("plugin", "install", "resource", "command", "1.2.1")]


@pytest.mark.parametrize("cli", [ON_PATH, BUILT])
def test_without_the_host_the_stand_ins_are_installed_outside_the_persons_home(
    *,
    cli: Cli,
    step: Step,
    go: Go,
    home: Path,
    installs: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host(monkeypatch, answers=False)
    own = plugins.obtain(step, cli, go, Path("uv"))
    assert own
    assert own.is_relative_to(cache.root())
    assert not home.exists()
    assert [(command[3], command[4], command[5]) for command in installs] == [
        ("docker", "5.2.0", "--file"),
        ("command", "1.2.1", "--file"),
    ]
    assert step.result == "docker 5.2.0 the lab's own, command 1.2.1 the lab's own"


def test_a_plugin_without_a_pinned_checksum_is_not_downloaded(
    step: Step, go: Go, home: Path, installs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    fetched: list[str] = []
    monkeypatch.setattr(Download, "fetch", lambda download, _file: fetched.append(download.url))
    monkeypatch.setattr(Download, "of", classmethod(lambda cls, name: cls("1.0", f"https://x/{name}", None)))
    assert plugins.obtain(step, BUILT, go, Path("uv"))
    assert not fetched


def test_a_plugin_with_a_pinned_checksum_is_downloaded_and_installed_from_its_archive(
    step: Step, go: Go, home: Path, installs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=True)
    monkeypatch.setattr(Download, "fetch", lambda _download, file: file.touch())
    monkeypatch.setattr(Download, "of", classmethod(lambda cls, name: cls("1.0", f"https://x/{name}", "00")))
    assert plugins.obtain(step, BUILT, go, Path("uv"))
    assert [Path(command[-1]).name for command in installs] == ["plugin.tar.gz"] * 2
    assert step.result == "docker 1.0 official, command 1.0 official"


def test_the_stand_in_is_installed_as_a_wrapper_that_starts_the_artifact(
    step: Step, go: Go, home: Path, installs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, answers=False)
    plugins.obtain(step, BUILT, go, Path("uv"))
    wrapper = Path(installs[0][-1]) / "pulumi-resource-docker"
    program = wrapper.parent.parent / "bin" / "pulumi-resource-docker"
    assert wrapper.read_text() == f'#!/bin/sh\nexec {program} "$@"\n'
    assert wrapper.stat().st_mode & 0o111
    command = Path(installs[1][-1]) / "pulumi-resource-command"
    assert f"PYTHONPATH={command.parent.parent} " in command.read_text()


@pytest.mark.parametrize("name", plugins.NAMES)
def test_the_plugins_are_of_the_versions_that_the_sdks_ask_for(name: str) -> None:
    assert f"\npulumi-{name}=={Download.of(name).version} " in (ROOT / "requirements.lock").read_text()
