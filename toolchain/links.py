"""`.toolchain/`: where the checkout finds what lies in the cache.

Owes: what is in it are links to the artifacts of the last setup, and nothing else;
env.sh and the program know only these names.
"""

from collections.abc import Iterable
from pathlib import Path


def point(link: Path, target: Path | None) -> None:
    """Have a link to the target, or none."""
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
    """Have a folder with links to exactly these programs."""
    wanted = {target.name: target for target in targets}
    for name, target in wanted.items():
        point(folder / name, target)
    for link in folder.iterdir() if folder.is_dir() else ():
        if link.name not in wanted:
            link.unlink()
