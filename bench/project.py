"""Pulumi projects of the bench: a lab, a lab without resources, and an empty program as the reference."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench.lifecycle import BenchError
from workspace.outputs import PROJECT

LIMIT_S = 900
_SETTINGS = ("--non-interactive", "--suppress-permalink=true")


@dataclass(frozen=True)
class Project:
    """A Pulumi program and a stack of it."""

    folder: Path
    """The folder of the program."""
    stack: str
    config: Path | None = None
    """The stack's file, where it is not in the program's folder."""
    backend: str = ""
    """The URL of the backend; empty for the program's own."""

    def preview(self) -> float:
        """Preview the program; return the seconds."""
        return self._seconds("preview")

    def up(self) -> float:
        """Apply the program, without a preview; return the seconds."""
        return self._seconds("up", "--yes", "--skip-preview")

    def creates(self) -> int:
        """Count the resources that a preview creates."""
        summary = json.loads(self._run("preview", "--json"))["changeSummary"]
        return int(summary["create"])

    def init(self, folder: Path) -> None:
        """Create the stack.

        Args:
            folder: A project of the same name, whose stack file gets the salt.
        """
        self._run("stack", "init", "--no-select", "--cwd", str(folder), configured=False)

    def _seconds(self, *verb: str) -> float:
        started = time.monotonic()
        self._run(*verb)
        return time.monotonic() - started

    def _run(self, *verb: str, configured: bool = True) -> str:
        command = ["pulumi", *verb, "--stack", self.stack]
        if verb[0] != "stack":
            command += _SETTINGS if "--json" not in verb else _SETTINGS[:1]
        if self.config and configured:
            command += ["--config-file", str(self.config)]
        environment = {**os.environ, **({"PULUMI_BACKEND_URL": self.backend} if self.backend else {})}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


@contextmanager
def empty() -> Iterator[Project]:
    """Create a project with an empty program, the lab's runtime and a file backend; delete it at the end."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        runtime = {"name": "python", "options": {"virtualenv": str(PROJECT / ".venv")}}
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "empty", "runtime": runtime}))
        (folder / "__main__.py").touch()
        project = Project(folder, "empty", backend=_backend(folder))
        project.init(folder)
        # The first run creates the stack's resource and compiles the program.
        project.up()
        yield project


@contextmanager
def from_nothing(config: dict[str, object]) -> Iterator[Project]:
    """Create a stack of the lab's program without resources, for previews; delete it at the end."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        # Pulumi finds the stack by the project's name.
        description = {"name": project_name(), "runtime": "python"}
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(description))
        file = folder / "Pulumi.lab.yaml"
        project = Project(PROJECT, "lab", config=file, backend=_backend(folder))
        project.init(folder)
        salt = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**salt, "config": config}))
        yield project


def project_name() -> str:
    """The name of the lab's project."""
    return str(yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["name"])


def _backend(folder: Path) -> str:
    state = folder / "state"
    state.mkdir()
    return f"file://{state}"
