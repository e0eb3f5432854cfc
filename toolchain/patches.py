"""Patches to third-party source: Go modules, of which a build uses patched copies, and the Pulumi SDK.

A patch corrects a fault, or leaves out code that the lab does not use and that takes minutes to compile. It
replaces exactly one text. Where that text is missing, as after an upgrade of the module, the build fails: so
a fault does not come back unnoticed.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from toolchain import cache
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.progress import Step


class Patch(NamedTuple):
    """A replacement of one text in a third-party source."""

    file: str
    """The file's path in the module, or in the folder of Python packages."""
    old: str = ""
    """The text, which is in the file once; empty to remove the whole file."""
    new: str = ""
    """The text that replaces it."""

    def apply(self, source: Path) -> None:
        """Apply the patch to a copy of the source.

        Raises:
            ToolchainError: The text is not in the file, or more than once.
        """
        file = source / self.file
        text = file.read_text() if file.exists() else ""
        if not text or (self.old and text.count(self.old) != 1):
            raise ToolchainError(
                f"a patch in {Path(__file__).parent} does not apply to {self.file}; next: read the file and "
                f"adapt or remove the patch: {self.old or 'the file is removed'}"
            )
        # Not in place, because uv makes hard links to the files in its cache.
        file.unlink()
        if self.old:
            file.write_text(text.replace(self.old, self.new))


class PatchedSource(NamedTuple):
    """A folder with the patched sources of a module's dependencies."""

    folder: Path

    @property
    def modfile(self) -> Path:
        """A go.mod of the module in which the patched copies replace the dependencies."""
        return self.folder / "go.mod"

    def source(self, dependency: str) -> Path:
        """The copy of a dependency, by its module path."""
        return self.folder / dependency


def patched_source(module: Path, patches: Mapping[str, Iterable[Patch]]) -> PatchedSource:
    """Where the patched sources are, or will be once `apply_patches` has run."""
    key = cache.key(*_pins(module), dict(patches), Path(__file__))
    return PatchedSource(cache.path(f"{module.name}-source", key))


def apply_patches(step: Step, go: Go, module: Path, patches: Mapping[str, Iterable[Patch]]) -> PatchedSource:
    """Copy and patch the source of modules that `module` requires, unless the cache has the result.

    Args:
        step: The step it is part of.
        go: Downloads the source.
        module: The module's folder.
        patches: The patches of each dependency, by its module path.

    Raises:
        ToolchainError: A patch does not apply.
    """
    final = patched_source(module, patches)
    name, _, key = final.folder.name.rpartition("-")

    def build(folder: Path) -> None:
        step.say(f"patching {', '.join(patches)}")
        draft = PatchedSource(folder)
        for dependency, of_dependency in patches.items():
            copy(go.module_source(module, dependency), draft.source(dependency))
            for patch in of_dependency:
                patch.apply(draft.source(dependency))
        for file in _pins(module):
            shutil.copyfile(file, folder / file.name)
        # The final paths, because the folder is renamed afterwards.
        replaces = [f"-replace={dependency}={final.source(dependency)}" for dependency in patches]
        step.run("editing go.mod", go.program, "mod", "edit", *replaces, draft.modfile, env=go.environment)

    cache.artifact(name, key, build)
    return final


def _pins(module: Path) -> list[Path]:
    return [module / name for name in ("go.mod", "go.sum")]


def copy(source: Path, target: Path) -> None:
    """Copy what a build reads, writable: the module cache is read-only."""
    unread = shutil.ignore_patterns("testdata", "*_test.go")
    shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=unread)
    for path, _, _ in os.walk(target):
        Path(path).chmod(0o755)
