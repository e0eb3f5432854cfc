"""Calico: confd's templates are adapted or refused; the archive depends on its content alone."""

import os
import tarfile
from pathlib import Path

import pytest

from toolchain import calico
from toolchain.errors import ToolchainError
from toolchain.pulumi import pinned

TEMPLATE = """
  if ( net ~ {{$data.cidr}} ) then {
      krt_tunnel = "";                     {{- /* no IPIP */}}
      krt_tunnel = "{{$data.ipip}}";       {{- /* IPIP */}}
    accept;
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "bird_ipam.cfg.template").write_text(TEMPLATE * 2)
    (folder / "bird.cfg.template").write_text("router id {{$id}};\n")
    (folder / "README.md").write_text("not for confd")
    return folder


def test_statements_that_debians_bird_does_not_know_go_and_all_else_stays(
    source: Path, tmp_path: Path
) -> None:
    calico.write_templates(source, tmp_path / "target")
    adapted = (tmp_path / "target" / "bird_ipam.cfg.template").read_text()
    assert "krt_tunnel" not in adapted
    assert adapted.count("accept;") == adapted.count("if ( net ~") == 2
    assert (tmp_path / "target" / "bird.cfg.template").read_text() == "router id {{$id}};\n"
    assert not (tmp_path / "target" / "README.md").exists()


def test_templates_that_are_not_as_expected_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "bird_ipam.cfg.template").write_text(TEMPLATE)
    with pytest.raises(ToolchainError, match=r"2 statements set krt_tunnel where Calico v3.31.0 has 4"):
        calico.write_templates(source, tmp_path / "target")


def test_the_archive_is_the_same_for_the_same_content(tmp_path: Path) -> None:
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


def test_of_two_programs_of_one_name_the_archive_has_the_first(tmp_path: Path) -> None:
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
def test_the_driver_is_built_on_the_same_calico(dependency: str) -> None:
    assert pinned(calico.DRIVER, dependency) == pinned(calico.MODULE, dependency)


def test_another_driver_has_another_version_and_another_test_of_it_has_not(tmp_path: Path) -> None:
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
