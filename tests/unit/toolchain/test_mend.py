"""Patches to upstream modules: applied in copies that take the modules' place, or the build ends."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from toolchain import calico, ebpf, plugins, pulumi
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.mend import Mend, Mended, mended
from toolchain.process import ask
from toolchain.progress import Step

PATCHED = {
    "pulumi": (pulumi.CLI, {pulumi.PKG: pulumi.LEFT_OUT}),
    "docker-plugin": (plugins.DOCKER, plugins.PATCHES),
    "calico": (calico.MODULE, {calico.CALICO: calico.LEFT_OUT}),
    "calico-ebpf": (calico.MODULE, {calico.CALICO: [*calico.LEFT_OUT, *ebpf.MENDS]}),
}
TOO_MUCH = {
    "pulumi": ["cloud.google.com/go/kms", "github.com/Azure/azure-sdk-for-go", "github.com/aws/"],
    "docker-plugin": ["k8s.io/", "github.com/aws/"],
    "calico": ["github.com/aws/", "github.com/envoyproxy/", "github.com/google/gopacket", "github.com/onsi/"],
}
"""What is not compiled, by the beginning of its import paths."""
PACKAGES = {"pulumi": "tool", "docker-plugin": "./cmd/pulumi-resource-docker", "calico": "tool"}


@pytest.fixture
def real_go() -> Go:
    program = shutil.which("go")
    assert program, "make test has Go on PATH"
    return Go(Path(program), on_path=True)


def patch(step: Step, go: Go, name: str) -> tuple[Path, Mapping[str, list[Mend]], Mended]:
    module, patches = PATCHED[name]
    return module, patches, mended(step, go, module, patches)


@pytest.mark.parametrize("name", PATCHED)
def test_a_build_takes_the_patched_copies(step: Step, real_go: Go, name: str) -> None:
    module, patches, made = patch(step, real_go, name)
    for dependency, mends in patches.items():
        source = made.source(dependency)
        for file, fault, without in mends:
            if not fault:
                assert not (source / file).exists()
                continue
            text = (source / file).read_text()
            assert text.count(without) == 1 if without else fault not in text
        listed = ("list", f"-modfile={made.modfile}", "-m", "-f", "{{.Dir}}", dependency)
        where = ask(real_go.program, *listed, cwd=module, env=real_go.environment).stdout.strip()
        assert where == str(source)


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_program_links_nothing_that_the_lab_cannot_use(step: Step, real_go: Go, name: str) -> None:
    module, _, made = patch(step, real_go, name)
    listing = ("list", "-deps", f"-modfile={made.modfile}", PACKAGES[name])
    packages = ask(real_go.program, *listing, cwd=module, env=real_go.environment).stdout.split()
    assert packages
    assert not [package for package in packages if package.startswith(tuple(TOO_MUCH[name]))]


def test_sources_that_were_patched_once_are_taken(step: Step, real_go: Go) -> None:
    _, _, first = patch(step, real_go, "docker-plugin")
    marker = first.folder / "marker"
    marker.touch()
    assert patch(step, real_go, "docker-plugin")[2] == first
    assert marker.exists()


@pytest.mark.parametrize("text", ["", "fault fault"])
def test_another_text_than_the_one_to_mend_ends_the_build(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.go").write_text(text)
    with pytest.raises(ToolchainError, match=r"a\.go is not the file that .* is to mend"):
        Mend("a.go", "fault", "none").apply(tmp_path)
    with pytest.raises(ToolchainError, match=r"b\.go is not the file"):
        Mend("b.go", "fault", "none").apply(tmp_path)
    with pytest.raises(ToolchainError, match=r"b\.go is not the file"):
        Mend("b.go").apply(tmp_path)
