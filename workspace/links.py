"""`.toolchain/` of a checkout: symbolic links to the artifacts in the cache that the last setup has chosen.

env.sh and the program know only these names, because the artifacts' own names change with their content.
"""

from collections.abc import Iterable
from pathlib import Path


def point(link: Path, target: Path | None) -> None:
    """Make a link point to the target; without a target the link is removed."""
    if target and link.is_symlink() and link.readlink() == target:
        return
    if target:
        link.parent.mkdir(parents=True, exist_ok=True)
        scratch = link.with_name(f".{link.name}")
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(target)
        scratch.rename(link)
    else:
        link.unlink(missing_ok=True)


def programs(folder: Path, targets: Iterable[Path]) -> None:
    """Make a folder hold links to exactly these programs."""
    wanted = {target.name: target for target in targets}
    for name, target in wanted.items():
        point(folder / name, target)
    for link in folder.iterdir() if folder.is_dir() else ():
        if link.name not in wanted:
            link.unlink()
