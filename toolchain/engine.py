"""The Docker engine on the controller, and the images that every build on it starts from."""

import subprocess
from pathlib import Path

from toolchain.progress import Step

HERE = Path(__file__).parent


def runs() -> bool:
    """Whether an engine answers."""
    return not subprocess.run([HERE / "docker-engine.sh", "running"], check=False).returncode


def obtain(step: Step) -> None:
    """Have an engine that answers: images are built on it, for machines that exist already, too."""
    step.result = "answers"
    if not runs():
        step.run("starting the Docker engine", HERE / "docker-engine.sh", "start")
        step.result = "started"


def stop() -> None:
    """Stop the engine, if `obtain` has started it."""
    subprocess.run([HERE / "docker-engine.sh", "stop"], check=True)


def base_images(step: Step) -> None:
    """Have the images that builds start from."""
    if subprocess.run([HERE / "base-image.sh", "present"], check=False).returncode:
        step.run("making the base images", HERE / "base-image.sh", "make")
        step.result = "made"
    else:
        step.result = "there"
