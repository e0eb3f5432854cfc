"""Patches: a build uses patched copies of modules, and fails where a patch does not apply."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from toolchain import calico, ebpf, plugins, pulumi
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.patches import Patch, PatchedSource, apply_patches
from toolchain.process import ask
from toolchain.progress import Step

PATCHES = {
    "pulumi": (pulumi.CLI, {pulumi.PKG: pulumi.LEFT_OUT}),
    "docker-plugin": (plugins.DOCKER, plugins.PATCHES),
    "calico": (calico.MODULE, {calico.CALICO: calico.LEFT_OUT}),
    "calico-ebpf": (calico.MODULE, {calico.CALICO: [*calico.LEFT_OUT, *ebpf.PATCHES]}),
}
EXCLUDED = {
    "pulumi": ["cloud.google.com/go/kms", "github.com/Azure/azure-sdk-for-go", "github.com/aws/"],
    "docker-plugin": ["k8s.io/", "github.com/aws/"],
    "calico": ["github.com/aws/", "github.com/envoyproxy/", "github.com/google/gopacket", "github.com/onsi/"],
}
"""Prefixes of the import paths that are not compiled."""
PACKAGES = {"pulumi": "tool", "docker-plugin": "./cmd/pulumi-resource-docker", "calico": "tool"}


@pytest.fixture
def real_go() -> Go:
    program = shutil.which("go")
    assert program, "make test has Go on PATH"
    return Go(Path(program), on_path=True)


def patch(step: Step, go: Go, name: str) -> tuple[Path, Mapping[str, list[Patch]], PatchedSource]:
    module, patches = PATCHES[name]
    return module, patches, apply_patches(step, go, module, patches)


@pytest.mark.parametrize("name", PATCHES)
def test_apply_patches_replaces_the_modules(step: Step, real_go: Go, name: str) -> None:
    module, patches, made = patch(step, real_go, name)
    for dependency, of_dependency in patches.items():
        source = made.source(dependency)
        for file, old, new in of_dependency:
            if not old:
                assert not (source / file).exists()
                continue
            text = (source / file).read_text()
            assert text.count(new) == 1 if new else old not in text
        listed = ("list", f"-modfile={made.modfile}", "-m", "-f", "{{.Dir}}", dependency)
        where = ask(real_go.program, *listed, cwd=module, env=real_go.environment).stdout.strip()
        assert where == str(source)


@pytest.mark.parametrize("name", EXCLUDED)
def test_left_out_packages_are_not_compiled(step: Step, real_go: Go, name: str) -> None:
    module, _, made = patch(step, real_go, name)
    listing = ("list", "-deps", f"-modfile={made.modfile}", PACKAGES[name])
    packages = ask(real_go.program, *listing, cwd=module, env=real_go.environment).stdout.split()
    assert packages
    assert not [package for package in packages if package.startswith(tuple(EXCLUDED[name]))]


def test_apply_patches_twice_uses_the_cache(step: Step, real_go: Go) -> None:
    _, _, first = patch(step, real_go, "docker-plugin")
    marker = first.folder / "marker"
    marker.touch()
    assert patch(step, real_go, "docker-plugin")[2] == first
    assert marker.exists()


@pytest.mark.parametrize("text", ["", "fault fault"])
def test_patch_that_does_not_apply_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.go").write_text(text)
    with pytest.raises(ToolchainError, match=r"a patch in .* does not apply to a\.go"):
        Patch("a.go", "fault", "none").apply(tmp_path)
    with pytest.raises(ToolchainError, match=r"does not apply to b\.go"):
        Patch("b.go", "fault", "none").apply(tmp_path)
    with pytest.raises(ToolchainError, match=r"does not apply to b\.go"):
        Patch("b.go").apply(tmp_path)
