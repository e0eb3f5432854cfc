"""A Pulumi stack of a checkout: its file, its state and locks, the environment of its CLI."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import ToolchainError
from toolchain.process import ask


@dataclass(frozen=True)
class Stack:
    """A stack, in the checkout's own file backend or in another one that PULUMI_BACKEND_URL names."""

    root: Path
    """The checkout."""
    name: str

    @property
    def config(self) -> Path:
        """The stack's file."""
        return self.root / f"Pulumi.{self.name}.yaml"

    @property
    def state(self) -> Path:
        """The folder of the file backend and of the passphrase."""
        return self.root / ".state"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the CLI; env.sh sets the same for the operator."""
        settings = {"PULUMI_SKIP_UPDATE_CHECK": "true", **os.environ}
        # A shell that has sourced the env.sh of another checkout has the passphrase of that one.
        other = settings.get("CALICO_LAB_ROOT", str(self.root))
        if (
            other != str(self.root)
            and settings.get("PULUMI_CONFIG_PASSPHRASE_FILE") == f"{other}/.state/passphrase"
        ):
            del settings["PULUMI_CONFIG_PASSPHRASE_FILE"]
        settings.setdefault("PULUMI_BACKEND_URL", f"file://{self.state}")
        home = self.root / ".toolchain" / "pulumi-home"
        if home.exists():
            settings["PULUMI_HOME"] = str(home)
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & settings.keys():
            settings["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(self.state / "passphrase")
        return settings

    @property
    def own_backend(self) -> bool:
        """Whether the state is in the checkout."""
        return "PULUMI_BACKEND_URL" not in os.environ

    @property
    def backend(self) -> str:
        """The URL of the backend."""
        return self.environment["PULUMI_BACKEND_URL"]

    @property
    def project(self) -> str:
        """The project's name."""
        match = re.search(r"^name:\s*(\S+)", (self.root / "Pulumi.yaml").read_text(), re.MULTILINE)
        if not match:
            raise ToolchainError(f"{self.root / 'Pulumi.yaml'} has no name; next: git checkout Pulumi.yaml")
        return match[1]

    def require_config(self) -> None:
        """Check that the stack's file exists.

        Raises:
            ToolchainError: It does not.
        """
        if not self.config.is_file():
            raise ToolchainError(
                f"there is no {self.config.name}; write one like Pulumi.lab.yaml, or give --stack lab"
            )

    def exported(self) -> dict[str, Any]:
        """The state as `pulumi stack export` prints it, read without Pulumi; empty where there is none."""
        checkpoint = self._checkpoints / f"{self.name}.json"
        return _state_in(checkpoint) if checkpoint.is_file() else {}

    def others(self) -> list[str]:
        """The other stacks with resources in the checkout's backend.

        This stack is one of them where it uses another backend.
        """
        stacks = {file.stem: file for file in sorted(self._checkpoints.glob("*.json"))}
        if self.own_backend:
            stacks.pop(self.name, None)
        return [name for name, file in stacks.items() if _state_in(file)["deployment"].get("resources")]

    def has_resources(self) -> bool:
        """Whether the stack has resources, in whichever backend.

        Raises:
            ToolchainError: The other backend does not answer.
        """
        if self.own_backend:
            return bool(self.exported().get("deployment", {}).get("resources"))
        export = f". ./env.sh && pulumi stack export --stack {self.name} --non-interactive"
        answer = ask("sh", "-c", export, cwd=self.root)
        if answer.returncode == 0:
            return bool(json.loads(answer.stdout)["deployment"].get("resources"))
        if "no stack named" in answer.stderr:
            return False
        raise ToolchainError(
            f"nothing was removed, because {self.backend} does not say whether stack {self.name} has "
            f"resources: {answer.stderr.strip()}"
        )

    def lock_holders(self) -> list[dict[str, Any]]:
        """The processes that hold the stack's lock, as Pulumi writes them down: `pid`, `hostname`."""
        locks = self.state / ".pulumi" / "locks" / "organization" / self.project / self.name
        return [json.loads(lock.read_text()) for lock in locks.glob("*.json")]

    @property
    def _checkpoints(self) -> Path:
        return self.state / ".pulumi" / "stacks" / self.project


def _state_in(checkpoint: Path) -> dict[str, Any]:
    return {"deployment": json.loads(checkpoint.read_text())["checkpoint"].get("latest") or {}}
