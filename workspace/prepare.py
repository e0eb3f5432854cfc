"""Makes a stack ready for `pulumi up`: passphrase, backend, selection; undoes what a killed run has left."""

import json
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

from toolchain.process import ask
from toolchain.progress import Step
from toolchain.pulumi import Cli
from workspace import leftovers, salt
from workspace.stack import Stack


def prepare(step: Step, stack: Stack, cli: Cli) -> None:
    """Make a stack ready for `pulumi up`; a stack that exists is kept."""
    stack.state.mkdir(mode=0o700, exist_ok=True)
    write_passphrase(stack.state / "passphrase")
    if not stack.own_backend:
        step.result = f"{stack.name}, in {stack.backend}"
        _select_or_init(step, stack, cli)
        return
    release_lock(step, stack, cli)
    if not stack.exported():
        _init(step, stack, cli)
    _select(step, stack, cli)
    settle(step, stack, cli)
    deployment = stack.exported()["deployment"]
    salt.write(stack.config, deployment.get("secrets_providers", {}).get("state", {}).get("salt"))
    salt.hide(stack)
    step.result = f"{stack.name}, {len(deployment.get('resources') or [])} resources"


def write_passphrase(file: Path) -> None:
    """Generate the passphrase once, readable by its owner alone."""
    if file.exists():
        return
    scratch = file.with_suffix(".new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_urlsafe(32))
    scratch.rename(file)


def release_lock(step: Step, stack: Stack, cli: Cli) -> None:
    """Remove the stack's lock, if a Pulumi that was killed on this computer holds it."""
    holders = stack.lock_holders()
    if holders and not any(_is_alive(holder) for holder in holders):
        cancel = ["cancel", "--yes", "--stack", stack.name]
        what = "removing the lock of a run that was killed"
        step.run(what, cli.program, *cancel, cwd=stack.root, env=stack.environment)


def settle(step: Step, stack: Stack, cli: Cli) -> None:
    """Remove the state's pending operations, and from the hosts what they may have created.

    A killed run leaves them. Pulumi only warns of them, at every later run.
    """
    state = stack.exported()
    if not state["deployment"].get("pending_operations"):
        return
    step.say("undoing what a run that was killed has started")
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


def notice_gone(step: Step, stack: Stack, cli: Cli) -> None:
    """Have `up` make the host containers that the Docker engine no longer has, and what they need of it."""
    state = stack.exported()
    if not (gone := leftovers.gone(state)):
        return
    step.say(f"{', '.join(gone)}: gone from this computer; the next `pulumi up` makes them again")
    targets = [word for one in leftovers.on_controller(state) for word in ("--target", one["urn"])]
    refresh = ["refresh", "--yes", "--skip-preview", "--non-interactive", "--stack", stack.name, *targets]
    what = "comparing the state with the Docker engine"
    step.run(what, cli.program, *refresh, cwd=stack.root, env=stack.environment)


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that holds a lock runs; one on another computer counts as running."""
    if holder["hostname"] != socket.gethostname():
        return True
    try:
        status = Path(f"/proc/{holder['pid']}/stat").read_text()
    except FileNotFoundError:
        return False
    # A zombie has ended, and its parent has not waited for it (proc(5), "stat": the state follows the name).
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _init(step: Step, stack: Stack, cli: Cli) -> None:
    # In an empty project, because Pulumi writes the salt into the stack file that it finds, and rewrites it.
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "Pulumi.yaml").write_text(f"name: {stack.project}\nruntime: python\n")
        init = ["stack", "init", stack.name, "--no-select", "--non-interactive"]
        what = f"creating the stack {stack.name}"
        step.run(what, cli.program, *init, cwd=Path(scratch), env=stack.environment)


def _select(step: Step, stack: Stack, cli: Cli) -> None:
    """Select this stack for commands without --stack, unless another one is selected."""
    # Pulumi stores the selection by the backend's URL as it is spelled: the operator's is in Pulumi.yaml.
    environment = {name: value for name, value in stack.environment.items() if name != "PULUMI_BACKEND_URL"}
    if ask(cli.program, "stack", "--show-name", cwd=stack.root, env=environment).returncode:
        select = ["stack", "select", stack.name, "--non-interactive"]
        step.run(f"selecting the stack {stack.name}", cli.program, *select, cwd=stack.root, env=environment)


def _select_or_init(step: Step, stack: Stack, cli: Cli) -> None:
    select = ["stack", "select", stack.name, "--create", "--non-interactive"]
    what = f"selecting the stack {stack.name}"
    step.run(what, cli.program, *select, cwd=stack.root, env=stack.environment)
