"""The Pulumi stack of a checkout: its passphrase, its state, and the salt that Pulumi wants in its file.

Pulumi makes the key of a stack's secrets from the passphrase and a salt, and keeps the salt in
`Pulumi.<stack>.yaml` as well as in the state. In a tracked file that would make every clone dirty after
its first run, and a committed salt would tie the lab to one passphrase. So the line is there for Pulumi
and is nothing to git: a clean filter, which .gitattributes names and this module defines in the clone's
own config, takes it out whenever git reads the file. The line is appended here, before Pulumi looks for
it, because Pulumi itself would write the whole file anew.
"""

import json
import os
import re
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import ToolchainError
from toolchain.process import ask
from toolchain.progress import Step
from toolchain.pulumi import Cli
from workspace import leftovers

FILTER = "filter.pulumi-salt.clean"
CLEAN = "sed '/^encryptionsalt: /d'"
_GIT_CONFIG = ("git", "config", "--local")
_SALT = re.compile(r"^encryptionsalt: .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Stack:
    """A stack of a checkout, in its own file backend or in another one that the person has chosen."""

    root: Path
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
        """What the CLI runs with; env.sh sets the same for the person."""
        settings = {"PULUMI_SKIP_UPDATE_CHECK": "true", **os.environ}
        settings.setdefault("PULUMI_BACKEND_URL", f"file://{self.state}")
        home = self.root / ".toolchain" / "pulumi-home"
        if home.exists():
            settings["PULUMI_HOME"] = str(home)
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & settings.keys():
            settings["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(self.state / "passphrase")
        return settings

    @property
    def own_backend(self) -> bool:
        """Whether the state lies in the checkout."""
        return "PULUMI_BACKEND_URL" not in os.environ

    @property
    def backend(self) -> str:
        """Where the state lies."""
        return self.environment["PULUMI_BACKEND_URL"]

    def require_config(self) -> None:
        """Refuse a stack that nobody has described."""
        if not self.config.is_file():
            raise ToolchainError(
                f"there is no {self.config.name}; write one like Pulumi.lab.yaml, or give --stack lab"
            )

    def exported(self) -> dict[str, Any]:
        """The state as `pulumi stack export` gives it, without starting Pulumi; empty where there is none."""
        checkpoint = self._checkpoints / f"{self.name}.json"
        return _state_in(checkpoint) if checkpoint.is_file() else {}

    def others(self) -> list[str]:
        """The other stacks with resources in the own backend; this one too, where another backend has it."""
        stacks = {file.stem: file for file in sorted(self._checkpoints.glob("*.json"))}
        if self.own_backend:
            stacks.pop(self.name, None)
        return [name for name, file in stacks.items() if _state_in(file)["deployment"].get("resources")]

    def has_resources(self) -> bool:
        """Whether there is something to take down, whichever backend knows of it.

        Raises:
            ToolchainError: The other backend cannot be asked.
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
            f"{self.backend} does not say whether the stack {self.name} has resources, so nothing was done: "
            f"{answer.stderr.strip()}"
        )

    @property
    def _checkpoints(self) -> Path:
        return self.state / ".pulumi" / "stacks" / self.project

    def holders(self) -> list[dict[str, Any]]:
        """The processes that have locked the stack, as Pulumi writes them down."""
        locks = self.state / ".pulumi" / "locks" / "organization" / self.project / self.name
        return [json.loads(lock.read_text()) for lock in locks.glob("*.json")]

    @property
    def project(self) -> str:
        """The project's name."""
        match = re.search(r"^name:\s*(\S+)", (self.root / "Pulumi.yaml").read_text(), re.MULTILINE)
        if not match:
            raise ToolchainError(f"{self.root / 'Pulumi.yaml'} has no name")
        return match[1]


def prepare(step: Step, stack: Stack, cli: Cli) -> None:
    """Have a stack that `pulumi up` can be run on."""
    stack.state.mkdir(mode=0o700, exist_ok=True)
    write_passphrase(stack.state / "passphrase")
    if not stack.own_backend:
        step.result = f"{stack.name}, in {os.environ['PULUMI_BACKEND_URL']}"
        _select_or_init(step, stack, cli)
        return
    release(step, stack, cli)
    if not stack.exported():
        _init(step, stack, cli)
    _select(step, stack, cli)
    settle(step, stack, cli)
    deployment = stack.exported()["deployment"]
    write_salt(stack.config, deployment.get("secrets_providers", {}).get("state", {}).get("salt"))
    hide_salt(stack)
    step.result = f"{stack.name}, {len(deployment.get('resources') or [])} resources"


def write_passphrase(file: Path) -> None:
    """Make the passphrase once, for its owner alone."""
    if file.exists():
        return
    scratch = file.with_suffix(".new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_urlsafe(32))
    scratch.rename(file)


def release(step: Step, stack: Stack, cli: Cli) -> None:
    """Take away the lock of a Pulumi that was killed on this machine; that of another is not touched."""
    holders = stack.holders()
    if holders and not any(_lives(holder) for holder in holders):
        cancel = ["cancel", "--yes", "--stack", stack.name]
        what = "releasing the lock of a run that was killed"
        step.run(what, cli.program, *cancel, cwd=stack.root, env=stack.environment)


def settle(step: Step, stack: Stack, cli: Cli) -> None:
    """Undo what a killed run has begun and not written down; Pulumi would only warn of it each time."""
    state = stack.exported()
    if not state["deployment"].get("pending_operations"):
        return
    step.say("undoing what a run that was killed has begun")
    leftovers.remove_unfinished(stack.state / "ssh" / stack.name / "config", leftovers.unfinished(state))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "state.json"

        def transfer(verb: str) -> None:
            command = ["stack", verb, "--file", str(file), "--stack", stack.name]
            step.run(f"{verb}ing the state", cli.program, *command, cwd=stack.root, env=stack.environment)

        transfer("export")
        document = json.loads(file.read_text())
        del document["deployment"]["pending_operations"]
        file.write_text(json.dumps(document))
        transfer("import")


def _state_in(checkpoint: Path) -> dict[str, Any]:
    return {"deployment": json.loads(checkpoint.read_text())["checkpoint"].get("latest") or {}}


def _lives(holder: dict[str, Any]) -> bool:
    if holder["hostname"] != socket.gethostname():
        return True
    try:
        status = Path(f"/proc/{holder['pid']}/stat").read_text()
    except FileNotFoundError:
        return False
    # A zombie has ended, though nobody has taken note of it (proc(5), "stat": the state follows the name).
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _init(step: Step, stack: Stack, cli: Cli) -> None:
    # In a project of its own, since Pulumi writes the salt, and all else, into the stack file that it finds.
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "Pulumi.yaml").write_text(f"name: {stack.project}\nruntime: python\n")
        init = ["stack", "init", stack.name, "--no-select", "--non-interactive"]
        what = f"making the stack {stack.name}"
        step.run(what, cli.program, *init, cwd=Path(scratch), env=stack.environment)


def _select(step: Step, stack: Stack, cli: Cli) -> None:
    """Have what is typed without --stack be about this stack, unless somebody has chosen another."""
    # Pulumi remembers the choice by the backend as it is spelt: for the person that is by Pulumi.yaml.
    typed = {name: value for name, value in stack.environment.items() if name != "PULUMI_BACKEND_URL"}
    if ask(cli.program, "stack", "--show-name", cwd=stack.root, env=typed).returncode:
        select = ["stack", "select", stack.name, "--non-interactive"]
        step.run(f"selecting the stack {stack.name}", cli.program, *select, cwd=stack.root, env=typed)


def _select_or_init(step: Step, stack: Stack, cli: Cli) -> None:
    select = ["stack", "select", stack.name, "--create", "--non-interactive"]
    what = f"selecting the stack {stack.name}"
    step.run(what, cli.program, *select, cwd=stack.root, env=stack.environment)


def write_salt(config: Path, salt: str | None) -> None:
    """Have exactly this salt in a stack's file, and touch nothing else of it."""
    text = config.read_text()
    wanted = _SALT.sub("", text)
    if salt:
        wanted = f"{wanted.rstrip()}\nencryptionsalt: {salt}\n"
    if text != wanted:
        scratch = config.with_suffix(".new")
        scratch.write_text(wanted)
        scratch.rename(config)


def hide_salt(stack: Stack) -> None:
    """Define the clean filter in the clone's own git config, and have git look at the file with it."""
    if not (stack.root / ".git").exists():
        return
    if ask(*_GIT_CONFIG, "--get", FILTER, cwd=stack.root).stdout.strip() != CLEAN:
        ask(*_GIT_CONFIG, FILTER, CLEAN, cwd=stack.root)
    _refresh(stack)


def forget_salt(stack: Stack) -> None:
    """Put the stack's file back as git knows it, and the clone's config too."""
    if not stack.config.is_file():
        return
    write_salt(stack.config, None)
    if (stack.root / ".git").exists():
        _refresh(stack)
        ask(*_GIT_CONFIG, "--remove-section", FILTER.rpartition(".")[0], cwd=stack.root)


def _refresh(stack: Stack) -> None:
    # Git takes a file of another size for modified without filtering it. The index gets the new size when
    # nothing else has changed; what the person has changed is left to the person.
    file = stack.config.name
    content = ask("git", "hash-object", "--path", file, file, cwd=stack.root)
    if content.stdout == ask("git", "rev-parse", f":{file}", cwd=stack.root).stdout:
        ask("git", "update-index", file, cwd=stack.root)
