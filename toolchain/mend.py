"""Patches to upstream Go modules: copies of their source, patched, take their place in a build.

Patches are of two kinds: what is wrong upstream, and what the lab cannot use and takes minutes to compile.

Owes: a patch that finds exactly the text that it is for; else the build ends, and no fault comes back unseen
with a newer version.
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


class Mend(NamedTuple):
    """One text of a module's source, and what takes its place."""

    file: str
    """The file's path in the module."""
    fault: str = ""
    """The text that is there once; none for the whole file, which is removed."""
    without: str = ""
    """The text in its place."""

    def apply(self, source: Path) -> None:
        """Patch it in a copy of the module's source.

        Raises:
            ToolchainError: The text is not there any more, or there more than once.
        """
        file = source / self.file
        text = file.read_text() if file.exists() else ""
        if not text or (self.fault and text.count(self.fault) != 1):
            raise ToolchainError(
                f"{self.file} is not the file that one of the patches in {Path(__file__).parent} is to mend; "
                f"see if it still has to: {self.fault or 'the file is removed'}"
            )
        if self.fault:
            file.write_text(text.replace(self.fault, self.without))
        else:
            file.unlink()


class Mended(NamedTuple):
    """The patched sources of a module's dependencies."""

    folder: Path

    @property
    def modfile(self) -> Path:
        """A go.mod to build the module with that has the copies in their dependencies' place."""
        return self.folder / "go.mod"

    def source(self, dependency: str) -> Path:
        """The copy of a dependency, by the path that go.mod requires it by."""
        return self.folder / dependency


def mended_folder(module: Path, mends: Mapping[str, Iterable[Mend]]) -> Mended:
    """Where the patched sources are, or will be."""
    return Mended(cache.path(f"{module.name}-source", cache.key(*_pins(module), dict(mends), Path(__file__))))


def _pins(module: Path) -> list[Path]:
    return [module / name for name in ("go.mod", "go.sum")]


def mended(step: Step, go: Go, module: Path, mends: Mapping[str, Iterable[Mend]]) -> Mended:
    """Copy and patch the source of modules that `module` requires; what an earlier run made is taken.

    Args:
        step: The step it is part of.
        go: What the source is brought with.
        module: The module's folder.
        mends: The patches, by the path that go.mod requires the patched module by.

    Raises:
        ToolchainError: A text to patch is not there any more, or there more than once.
    """
    final = mended_folder(module, mends)
    name, _, key = final.folder.name.rpartition("-")

    def build(folder: Path) -> None:
        step.say(f"patching {', '.join(mends)}")
        draft = Mended(folder)
        for dependency, patches in mends.items():
            copy(go.module_source(module, dependency), draft.source(dependency))
            for mend in patches:
                mend.apply(draft.source(dependency))
        for file in _pins(module):
            shutil.copyfile(file, folder / file.name)
        # Where the copies are once the folder has its name.
        replaces = [f"-replace={dependency}={final.source(dependency)}" for dependency in mends]
        step.run("replacing", go.program, "mod", "edit", *replaces, draft.modfile, env=go.environment)

    cache.artifact(name, key, build)
    return final


def copy(source: Path, target: Path) -> None:
    """Copy what a build reads; the module cache is read-only, and its files are not executable."""
    unread = shutil.ignore_patterns("testdata", "*_test.go")
    shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=unread)
    for path, _, _ in os.walk(target):
        Path(path).chmod(0o755)
