"""Switches the network's encapsulation and dataplane and back; the stack's own config file is not changed."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench import lifecycle
from bench.lifecycle import BenchError
from workspace.outputs import PROJECT


@dataclass(frozen=True)
class Mode:
    """The settings of the network that change the path of packets."""

    encapsulation: str = "none"
    dataplane: str = "iptables"

    def __str__(self) -> str:
        over = "no encapsulation" if self.encapsulation == "none" else self.encapsulation
        return over if self.dataplane == "iptables" else f"{over}, {self.dataplane}"


def configured(file: Path) -> Mode:
    """The mode in a stack's file."""
    section = yaml.safe_load(file.read_text())["config"].get("calico-lab:network", {})
    return Mode(**{key: section[key] for key in ("encapsulation", "dataplane") if key in section})


def file_of(name: str) -> Path:
    """The stack's file."""
    return PROJECT / f"Pulumi.{name}.yaml"


@contextmanager
def switched(name: str, mode: Mode) -> Iterator[None]:
    """Apply a mode to the lab, and its own again at the end."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / file_of(name).name
        shutil.copy(file_of(name), copy)
        for key in ("encapsulation", "dataplane"):
            path = f"calico-lab:network.{key}"
            _run("pulumi", "config", "set", "--stack", name, "--config-file", str(copy), "--path", path,
                 getattr(mode, key), seconds=60)  # fmt: skip
        if mode.dataplane == "ebpf":
            _run("python3", "-m", "workspace", "ebpf", seconds=1200)
        try:
            lifecycle.run("up", name, copy)
            yield
        finally:
            lifecycle.run("up", name)


def _run(*command: str, seconds: float) -> None:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stderr}")
