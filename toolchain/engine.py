"""The controller's Docker engine, and the base images of all builds on it."""

import subprocess
from pathlib import Path

from toolchain.progress import Step

HERE = Path(__file__).parent


def runs() -> bool:
    """Whether an engine answers."""
    return not subprocess.run([HERE / "docker-engine.sh", "running"], check=False).returncode


def obtain(step: Step) -> None:
    """Start the engine unless it answers; every stack needs it, because images are built on it."""
    step.result = "answers"
    if not runs():
        step.run("starting the Docker engine", HERE / "docker-engine.sh", "start")
        step.result = "started"


def stop() -> None:
    """Stop the engine if `obtain` has started it."""
    subprocess.run([HERE / "docker-engine.sh", "stop"], check=True)


def base_images(step: Step) -> None:
    """Make the base images that are missing."""
    if subprocess.run([HERE / "base-image.sh", "present"], check=False).returncode:
        step.run("making the base images", HERE / "base-image.sh", "make")
        step.result = "made"
    else:
        step.result = "up to date"
