"""The lab's network with another encapsulation for a while. The stack's own config file stays as it is."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench import lifecycle
from bench.lifecycle import BenchError
from lab.stack import PROJECT

DEFAULT = "none"


def configured(file: Path) -> str:
    """The encapsulation that a stack's file asks for."""
    config = yaml.safe_load(file.read_text())["config"]
    return str(config.get("calico-lab:network", {}).get("encapsulation", DEFAULT))


def file_of(name: str) -> Path:
    """The stack's config."""
    return PROJECT / f"Pulumi.{name}.yaml"


@contextmanager
def switched(name: str, encapsulation: str) -> Iterator[None]:
    """Bring the lab up with an encapsulation, and again with its own at the end."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / file_of(name).name
        shutil.copy(file_of(name), copy)
        command = ["pulumi", "config", "set", "--stack", name, "--config-file", str(copy), "--path"]
        command += ["calico-lab:network.encapsulation", encapsulation]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)}: {done.stderr}")
        try:
            lifecycle.run("up", name, copy)
            yield
        finally:
            lifecycle.run("up", name)
