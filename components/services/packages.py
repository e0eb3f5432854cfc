"""The Python packages that notebooks import: a list, and a lock file beside it with versions and hashes."""

import re
from pathlib import Path

from toolchain.python_env import listed

DEFAULT = Path("images/notebook/packages.in")
_JUPYTERLAB = Path("images/notebook/requirements.lock")
_PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def packages_lock(source: Path, root: Path) -> Path:
    """The lock file of a list of packages: `class.lock` for `class.in`.

    Args:
        source: The list, a requirements file, relative to the checkout or absolute.
        root: The checkout.

    Raises:
        ValueError: The list or its lock file is missing, or the lock file is of another list or of another
            JupyterLab; the message has the next step.
    """
    packages, lock = root / source, (root / source).with_suffix(".lock")
    following = f"next: python3 -m workspace lock --packages {source}"
    if not packages.is_file():
        raise ValueError(f"there is no file {source}; next: write the packages into it, one on a line")
    if packages == lock:
        raise ValueError(f"{source} is a lock file; next: name the list that it was made from")
    if not lock.is_file():
        raise ValueError(f"the packages in {source} are not locked; {following}")
    text = lock.read_text()
    if text.partition("\n")[0] != f"# {' '.join(listed(packages.read_text()))}":
        raise ValueError(f"{source} has changed since {lock.name} was written; {following}")
    jupyterlab = dict(_PIN.findall((root / _JUPYTERLAB).read_text()))
    for name, version in _PIN.findall(text):
        if (wanted := jupyterlab.get(name, version)) != version:
            raise ValueError(f"{lock.name} has {name} {version}, and JupyterLab has {wanted}; {following}")
    return lock
