"""The program with a stack, a state and a config of its own, beside the lab of the checkout."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.live.program import QUIET
from tests.previews import Preview, preview
from workspace import outputs as stack
from workspace.outputs import PROJECT, Outputs

_PASSPHRASE = "of this test alone"


@dataclass(frozen=True)
class Apart:
    """A stack in a folder of its own."""

    folder: Path
    stack: str

    def make(self) -> None:
        """Make the stack, in a project of its own: Pulumi writes the stack's salt beside its Pulumi.yaml."""
        (self.folder / "state").mkdir()
        (self.folder / "Pulumi.yaml").write_text("name: calico-lab\nruntime: python\n")
        self.pulumi("stack", "init", "--no-select", "--cwd", str(self.folder))

    @property
    def environment(self) -> dict[str, str]:
        """What Pulumi, and the lab's command, find the stack by."""
        environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{self.folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": _PASSPHRASE,
        }
        environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        return environment

    @property
    def _file(self) -> Path:
        return self.folder / f"Pulumi.{self.stack}.yaml"

    def pulumi(self, *arguments: str, seconds: float = 60, fails: bool = False) -> str:
        """Run a pulumi command on the stack, which has to succeed, or to fail, and return what it prints."""
        command = ["pulumi", *arguments, "--stack", self.stack]
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert (done.returncode != 0) == fails, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def configure(self, config: dict[str, Any]) -> None:
        """Write the stack's config file."""
        salt = yaml.safe_load(self._file.read_text())["encryptionsalt"]
        self._file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": config}))

    def preview(self, config: dict[str, Any]) -> Preview:
        """Preview a config."""
        self.configure(config)
        return preview(self.stack, self._file, self.environment)

    def up(self, config: dict[str, Any], seconds: float) -> None:
        """Apply a config."""
        self.configure(config)
        self.pulumi("up", "--yes", "--skip-preview", *self._config, *QUIET, seconds=seconds)

    def refused(self, config: dict[str, Any]) -> str:
        """Preview a config that cannot be applied, and return what Pulumi says."""
        self.configure(config)
        return self.pulumi("preview", *self._config, *QUIET, fails=True)

    def texts(self) -> str:
        """Everything that the state and the folder of the SSH access have, as it is on disk."""
        folders = (self.folder / "state", PROJECT / ".state" / "ssh" / self.stack)
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return "".join(path.read_text(errors="replace") for path in files)

    def nothing_to_change(self) -> None:
        """Fail where another `up` would change something."""
        self.pulumi("preview", "--expect-no-changes", *self._config, *QUIET)

    def destroy(self, seconds: float, *, fails: bool = False) -> str:
        """Take all of it down, and return what Pulumi says."""
        destroy = ("destroy", "--yes", "--skip-preview", *self._config, *QUIET)
        return self.pulumi(*destroy, seconds=seconds, fails=fails)

    def outputs(self) -> Outputs:
        """The stack's outputs."""
        return stack.parse(json.loads(self.pulumi("stack", "output", "--json")), self.stack)

    @property
    def _config(self) -> tuple[str, str]:
        return "--config-file", str(self._file)
