"""Calico: the archive depends only on its content, and the driver's version on its sources."""

import os
import tarfile
from pathlib import Path

import pytest

from toolchain import calico
from toolchain.pulumi import pinned


def test_pack_gives_the_same_archive_for_the_same_content(tmp_path: Path) -> None:
    programs, templates = tmp_path / "programs", tmp_path / "templates"
    for folder, name in ((programs, "calico-node"), (templates, "bird.cfg.template")):
        folder.mkdir()
        (folder / name).write_text(name)
    content = {"confd/templates": [templates], "bin": [programs]}
    calico.pack(tmp_path / "one.tar.gz", content)
    os.utime(programs / "calico-node", (1, 1))
    (programs / "calico-node").chmod(0o700)
    calico.pack(tmp_path / "two.tar.gz", content)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert [(entry.name, entry.mode, entry.uid) for entry in tar] == [
            ("bin/calico-node", 0o755, 0),
            ("confd/templates/bird.cfg.template", 0o644, 0),
        ]


def test_pack_takes_the_first_of_two_files_with_one_name(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("felix-ebpf", "calico")]
    for folder in folders:
        folder.mkdir()
        (folder / "calico-node").write_text(folder.name)
    (folders[1] / "calicoctl").write_text("")
    calico.pack(tmp_path / "one.tar.gz", {"bin": folders})
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert tar.getnames() == ["bin/calico-node", "bin/calicoctl"]
        assert tar.extractfile("bin/calico-node").read() == b"felix-ebpf"  # type: ignore[union-attr]


@pytest.mark.parametrize("dependency", ["github.com/projectcalico/calico", "github.com/projectcalico/api"])
def test_driver_and_programs_pin_the_same_calico(dependency: str) -> None:
    assert pinned(calico.DRIVER, dependency) == pinned(calico.MODULE, dependency)


def test_driver_version_changes_with_sources_and_not_with_tests(tmp_path: Path) -> None:
    for name, text in {"go.mod": "module x", "go.sum": "", "main.go": "package main"}.items():
        (tmp_path / name).write_text(text)
    first = calico.driver_version(tmp_path)
    assert first.startswith("v0.1.0+")
    (tmp_path / "main_test.go").write_text("package main")
    (tmp_path / "README.md").write_text("how to")
    assert calico.driver_version(tmp_path) == first
    for name in ("go.mod", "go.sum", "main.go"):
        (tmp_path / name).write_text("something else")
        assert calico.driver_version(tmp_path) != first
        first = calico.driver_version(tmp_path)
