"""The Pulumi program as an operator runs it, with changed copies of the tracked config."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import previews
from tests.preview.program import with_values
from tests.previews import Change, ProgramError
from workspace.outputs import PROJECT

QUIET = ("--non-interactive", "--suppress-permalink=true", "--color", "never")


class Secret(str):
    """A secret that a failing test does not print."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[secret]'"


@dataclass(frozen=True)
class Program:
    """The program and the stack that the tests look at."""

    stack: str

    @property
    def config(self) -> Path:
        """The stack's tracked config."""
        return PROJECT / f"Pulumi.{self.stack}.yaml"

    def pulumi(self, *arguments: str, seconds: float = 300) -> str:
        """Run a pulumi command on the stack and return what it prints.

        Raises:
            ProgramError: It failed.
        """
        done = subprocess.run(
            ["pulumi", *arguments, "--stack", self.stack],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if done.returncode != 0:
            raise ProgramError(f"pulumi {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def up(self, config: Path | None = None, seconds: float = 300) -> str:
        """Apply the tracked config, or another."""
        return self.pulumi("up", "--yes", "--skip-preview", *QUIET, *_config_file(config), seconds=seconds)

    def preview(self, config: Path | None = None) -> list[Change]:
        """What `up` would change."""
        return previews.preview(self.stack, config).changes

    def changed_config(self, folder: Path, changes: Mapping[str, Any]) -> Path:
        """Write a copy of the tracked config with some values changed.

        Args:
            folder: Where the copy lies.
            changes: Value by path, as `network.mtu`.
        """
        document = yaml.safe_load(self.config.read_text())
        return self._copy(folder, {**document, "config": with_values(document["config"], changes)})

    def edited_config(self, folder: Path, section: str, edit: Callable[[dict[str, Any]], object]) -> Path:
        """Write a copy of the tracked config with one section edited.

        Args:
            folder: Where the copy lies.
            section: The section's name, as `firewall`.
            edit: Changes the section that it is given.
        """
        document = yaml.safe_load(self.config.read_text())
        edit(document["config"][f"calico-lab:{section}"])
        return self._copy(folder, document)

    def _copy(self, folder: Path, document: dict[str, Any]) -> Path:
        copy = folder / self.config.name
        copy.write_text(yaml.safe_dump(document, sort_keys=False))
        return copy

    def secret_output(self, name: str) -> Secret:
        """The value of a secret output."""
        return Secret(self.pulumi("stack", "output", name, "--show-secrets").strip())

    def resource(self, component: str) -> dict[str, Any]:
        """The state of the only component of a type."""
        kind = f"calico-lab:index:{component}"
        [found] = [one for one in self.state()["deployment"]["resources"] if one["type"] == kind]
        return dict(found)

    @staticmethod
    def plaintext(value: dict[str, str]) -> Secret:
        """The value of a secret in a state whose secrets are in the clear."""
        return Secret(json.loads(value["plaintext"]))

    def state(self) -> dict[str, Any]:
        """The stack's state with its secrets in the clear."""
        state: dict[str, Any] = json.loads(self.pulumi("stack", "export", "--show-secrets"))
        return state


def kill_session(leader: "subprocess.Popen[Any]") -> None:
    """Kill a command that leads a session, with the plugins, which have process groups of their own."""
    subprocess.run(["pkill", "--signal", "KILL", "--session", str(leader.pid)], check=True)


def _config_file(config: Path | None) -> tuple[str, ...]:
    return ("--config-file", str(config)) if config else ()
