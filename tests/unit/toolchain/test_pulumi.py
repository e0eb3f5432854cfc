"""Pulumi: the official one on PATH, else the official one by download, else a build."""

import os
from pathlib import Path

import pytest

from toolchain import cache, pulumi
from toolchain.download import Download
from toolchain.golang import Go
from toolchain.patches import PatchedSource
from toolchain.progress import Step


@pytest.fixture(autouse=True)
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Replaces builds by empty programs, and records the modules."""
    built: list[str] = []

    def build(_go: Go, _step: Step, module: Path, _package: str, output: Path, **_: str) -> None:
        built.append(module.name)
        (output / {"pulumi": "pulumi", "language-python": "pulumi-language-python"}[module.name]).touch()

    source = tmp_path / "source" / "python"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        (source / script).parent.mkdir(parents=True)
        (source / script).write_text("#!/bin/sh\n")
    monkeypatch.setattr(Go, "build", build)
    monkeypatch.setattr(pulumi, "apply_patches", lambda *_: PatchedSource(tmp_path))
    monkeypatch.setattr(Go, "module_source", lambda *_: source.parent)
    return built


def install(folder: Path, version: str) -> Path:
    """Install an official Pulumi of this version."""
    program = folder / "pulumi"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return program


def reachable(monkeypatch: pytest.MonkeyPatch, answer: bool) -> list[str]:
    asked: list[str] = []

    def answers(download: Download) -> bool:
        asked.append(download.url)
        return answer

    def fetch(_download: Download, archive: Path) -> None:
        tree = archive.parent / "tree"
        (tree / "pulumi").mkdir(parents=True)
        install(tree / "pulumi", "v3.255.0")
        os.system(f"tar -czf {archive} -C {tree} pulumi && rm -r {tree}")  # noqa: S605

    monkeypatch.setattr(Download, "answers", answers)
    monkeypatch.setattr(Download, "fetch", fetch)
    return asked


def test_obtain_takes_an_official_cli_from_path(
    step: Step, go: Go, empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = reachable(monkeypatch, True)
    program = install(empty_path, "v3.250.1")
    cli = pulumi.obtain(step, go)
    assert (cli.program, cli.official, cli.on_path) == (program, True, True)
    assert step.result == f"v3.250.1 from PATH ({program})"
    assert not asked


def test_obtain_names_an_old_cli_on_path(
    step: Step, go: Go, empty_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reachable(monkeypatch, True)
    program = install(empty_path, "v3.225.0")
    assert not pulumi.obtain(step, go).on_path
    assert f"{program} is v3.225.0, the lab needs 3.226 or newer" in capsys.readouterr().out


def test_obtain_downloads_the_official_cli_once(step: Step, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = reachable(monkeypatch, True)
    cli = pulumi.obtain(step, go)
    assert (cli.official, cli.on_path) == (True, False)
    assert step.result == "v3.255.0, official, downloaded and verified"
    assert cli.programs == [cli.program]
    assert not list(cli.folder.glob("*.gz"))
    assert pulumi.obtain(step, go) == cli
    assert len(asked) == 1


def test_obtain_builds_cli_and_language_host_once(
    step: Step, go: Go, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = reachable(monkeypatch, False)
    cli = pulumi.obtain(step, go)
    assert not cli.official
    assert [program.name for program in cli.programs] == [
        "pulumi",
        "pulumi-language-python",
        "pulumi-language-python-exec",
        "pulumi-resource-pulumi-python",
    ]
    assert step.result == "v3.259.0, built from its Go modules"
    assert pulumi.obtain(step, go) == cli
    assert builds == ["pulumi", "language-python"]
    assert len(asked) == 1, "with a build in the cache the host is not asked"


def test_to_build_before_and_after_the_build(
    step: Step, go: Go, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, False)
    assert pulumi.to_build(go) == pulumi.BUILD_S
    pulumi.obtain(step, go)
    assert not pulumi.to_build(go)


def test_to_build_where_the_host_answers(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    reachable(monkeypatch, True)
    assert not pulumi.to_build(go)


def test_obtain_recognizes_the_own_build_on_path(
    step: Step, go: Go, builds: list[str], empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, False)
    cli = pulumi.obtain(step, go)
    install(cli.folder, "v3.259.0")
    (empty_path / "pulumi").symlink_to(cli.program)
    assert pulumi.obtain(step, go) == cli
    assert not cli.on_path
    assert cli.folder.is_relative_to(cache.root())


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        ("v3.226.0", True),
        ("3.259.0", True),
        ("v4.0.0", True),
        ("v3.225.9", False),
        ("v3.99.0", False),
        ("", False),
    ],
)
def test_acceptable_versions(version: str, accepted: bool) -> None:
    assert pulumi.acceptable(version) is accepted
