"""Programs that come from PyPI or from the machine's own package manager."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from toolchain import cache
from toolchain.errors import ToolchainError
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
DEBIAN_PACKAGES = {
    "git": "git",
    "ssh": "openssh-client",
    "ssh-keyscan": "openssh-client",
    "ip": "iproute2",
    "tar": "tar",
}
"""What the lab needs on the controller beside its own tools, by program."""


def from_pypi(step: Step, name: str) -> Path:
    """The folder of a package that is pinned by `<name>.requirements`, with its hashes."""
    requirements = HERE / f"{name}.requirements"

    def build(folder: Path) -> None:
        if ask(sys.executable, "-m", "pip", "--version").returncode:
            install(step, ["python3-pip"], f"{sys.executable} has no pip")
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
        step.run(f"installing {name} from PyPI", *pip, "--target", folder, "--requirement", requirements)

    return cache.artifact(name, cache.key(requirements, os.uname().machine), build)


def install_missing(step: Step) -> None:
    """Install those programs of the controller that it lacks."""
    missing = {package for program, package in DEBIAN_PACKAGES.items() if not shutil.which(program)}
    if missing:
        install(step, missing, f"this machine lacks {', '.join(sorted(missing))}")
        step.result = f"installed {', '.join(sorted(missing))}"
    else:
        step.result = "all there"


def install(step: Step, packages: Iterable[str], reason: str) -> None:
    """Install Debian packages, where this may be done.

    Raises:
        ToolchainError: It is not root on Debian or Ubuntu, or apt fails.
    """
    names = sorted(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ToolchainError(
            f"{reason}, and only root on Debian or Ubuntu can have it installed; "
            f"install {' '.join(names)} and try again"
        )
    step.run("apt-get update", "apt-get", "update")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "install", "--yes", "--no-install-recommends"]
    step.run(f"installing {' '.join(names)}", *apt, *names, env=quiet)
