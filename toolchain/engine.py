"""The Docker engine on the controller, and the images that every build on it starts from."""

import re
import subprocess
from pathlib import Path

from toolchain.progress import Step

HERE = Path(__file__).parent


def needed(config: Path) -> bool:
    """Whether a stack's machines are containers on this engine. There is no YAML in the standard library."""
    return not re.search(r"^\s*provider:\s*[\"']?existing\b", config.read_text(), re.MULTILINE)


def runs() -> bool:
    """Whether an engine answers."""
    return not subprocess.run([HERE / "docker-engine.sh", "running"], check=False).returncode


def obtain(step: Step, config: Path) -> bool:
    """Have an engine that answers, if the stack needs one; return whether there is one."""
    step.result = "answers"
    if runs():
        return True
    if not needed(config):
        step.result = "none, and none is needed for existing machines"
        return False
    step.run("starting the Docker engine", HERE / "docker-engine.sh", "start")
    step.result = "started"
    return True


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
