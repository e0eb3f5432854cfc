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
    """One fault."""

    file: str
    """The file's path in the module."""
    fault: str
    """The text that is there once."""
    without: str
    """The text in its place."""


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
    for each in mends:
        mend(source, each)
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


def mend(source: Path, fault: Mend) -> None:
    """Mend one fault in a copy of a module's source.

    Raises:
        ToolchainError: Its text is not there any more, or there more than once.
    """
    file = source / fault.file
    text = file.read_text() if file.exists() else ""
    if text.count(fault.fault) != 1:
        raise ToolchainError(
            f"{fault.file} is not the file that {__file__} is to mend; see if it still has to: {fault.fault}"
        )
    file.write_text(text.replace(fault.fault, fault.without))
