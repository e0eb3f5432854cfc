"""What is wrong with an upstream Go module, mended in a copy of its source that takes its place in a build.

Owes: a mend that finds exactly the text that it is for; else the build ends, and no fault comes back unseen
with a newer version.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.progress import Step


class Mend(NamedTuple):
    """One fault, and what takes its place."""

    file: str
    """The file's path in the module."""
    fault: str
    """The text that is there once."""
    without: str
    """The text in its place."""

    def apply(self, source: Path) -> None:
        """Mend it in a copy of the module's source.

        Raises:
            ToolchainError: The text is not there any more, or there more than once.
        """
        file = source / self.file
        text = file.read_text() if file.exists() else ""
        if text.count(self.fault) != 1:
            raise ToolchainError(
                f"{self.file} is not the file that one of the MENDS in {Path(__file__).parent} is to mend; "
                f"see if it still has to: {self.fault}"
            )
        file.write_text(text.replace(self.fault, self.without))


def mended(
    step: Step, go: Go, module: Path, dependency: str, mends: Iterable[Mend], *, folder: Path
) -> tuple[Path, Path]:
    """Copy and mend the source of a module that `module` requires.

    Args:
        step: The step it is part of.
        go: What the source is brought with.
        module: The module's folder.
        dependency: The module that is mended, by the path that go.mod requires it by.
        mends: Its faults.
        folder: The folder to make for the copy.

    Returns:
        The copy, and a go.mod to build `module` with that has the copy in the dependency's place.

    Raises:
        ToolchainError: A text to mend is not there any more, or there more than once.
    """
    folder.mkdir()
    source, modfile = folder / "source", folder / "go.mod"
    copy(go.module_source(module, dependency), source)
    for mend in mends:
        mend.apply(source)
    for name in (modfile.name, "go.sum"):
        shutil.copyfile(module / name, folder / name)
    replace = f"-replace={dependency}={source}"
    step.run(f"mending {dependency}", go.program, "mod", "edit", replace, modfile, env=go.environment)
    return source, modfile


def copy(source: Path, target: Path) -> None:
    """Copy from the module cache, which is read-only, and whose files are not executable."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path, _, _ in os.walk(target):
        Path(path).chmod(0o755)
