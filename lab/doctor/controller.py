"""Findings about the controller: its Docker engine, disk and networks."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from components.hosts.config import DockerHosts
from components.hosts.container import interface_in
from config.model import LabConfig
from diagnosis.capacity import CONTROLLER, FREE_DISK, GIB, gib
from diagnosis.finding import Finding

NEEDED_DISK = 3 * GIB
"""Bytes, for packages and for the layers of images, also while they are built or transferred."""
_ENGINE = ["docker", "info", "--format", "{{.DockerRootDir}}"]


def findings(config: LabConfig) -> Iterator[Finding]:
    """Find what is missing on the controller."""
    if isinstance(config.hosts, DockerHosts):
        used = interface_in(config.hosts.network, Path("/proc/net/route").read_text())
        if used:
            yield Finding(
                CONTROLLER,
                f"hosts.network {config.hosts.network} is in use by {used}",
                "give hosts.network, and the addresses in it, another private network",
            )
    try:
        answer = subprocess.run(_ENGINE, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        cause = str(getattr(error, "stderr", None) or error).strip()
        yield Finding(
            CONTROLLER, f"Docker does not answer: {cause}", "make setup, which installs and starts it"
        )
        return
    folder = Path(answer.stdout.strip())
    # The folder is on another machine if the engine is.
    if folder.is_dir():
        yield from disk(CONTROLLER, folder, shutil.disk_usage(folder).free)


def disk(where: str, folder: str | Path, free: int) -> Iterator[Finding]:
    """Find too little free disk space.

    Args:
        where: The host.
        folder: The folder.
        free: Free bytes in it.
    """
    if free < NEEDED_DISK:
        what = f"{gib(free)} are free in {folder}, and the lab needs {gib(NEEDED_DISK)}"
        yield Finding(where, what, FREE_DISK)
