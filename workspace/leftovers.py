"""What the Docker engine has of a lab and no state knows, and what a state has and the engine does not.

A run that is killed between creating a resource and recording it leaves the resource behind, as does a
checkout that is deleted. It would make the next `up` fail. On the controller's Docker engine everything of a
lab has two labels: the stack's name, and the fingerprint of the operator's key, which differs between the
labs of two checkouts.
"""

import base64
import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {"container": ["ps", "-a"], "network": ["network", "ls"], "volume": ["volume", "ls"]}
REMOVE = {
    "container": ["rm", "--force", "--volumes"],
    "network": ["network", "rm"],
    "volume": ["volume", "rm"],
}


CONTAINER = "docker:index/container:Container"
ON_HOSTS = [f"pulumi-python:dynamic/calico-lab:{name}" for name in ("DockerObject", "NotebookContainer")]
"""The types of what is on hosts, and unknown to `destroy` after a killed run."""


class ForeignLabError(RuntimeError):
    """Another checkout's lab is on this computer."""


@dataclass(frozen=True)
class Leftover:
    """A container, network or volume of a lab that is not in the stack's state."""

    kind: str
    id: str
    name: str
    operator: str
    """The fingerprint of the operator's key."""
    running: bool


@dataclass(frozen=True)
class Unfinished:
    """A container or network on a host whose creation a killed run has started."""

    host: str
    """The ssh:// URL."""
    name: str
    remove: list[str]
    """The arguments of `docker` that remove it."""


def operator_of(state: Mapping[str, Any]) -> str | None:
    """The fingerprint of the operator's key in an exported state; None where the state has no key."""
    for resource in state.get("deployment", {}).get("resources") or []:
        if resource["urn"].endswith("::operator"):
            key = base64.b64decode(resource["outputs"]["public_key"].split()[1])
            return base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return None


def not_in_state(state: Mapping[str, Any], found: Iterable[Leftover]) -> list[Leftover]:
    """Return those that an exported state does not hold, and the volumes of other checkouts.

    Raises:
        ForeignLabError: One of them is a running container or a volume of another checkout's lab.
    """
    found = list(found)
    own = operator_of(state)
    known = {resource.get("id") for resource in state.get("deployment", {}).get("resources") or []}
    # The ID of a volume is its name, which is the same in all checkouts.
    volumes = [one for one in found if one.kind == "volume" and one.operator != own]
    left = [one for one in found if one.id not in known or one in volumes]
    # A stopped lab is one too: its volumes have the saved work.
    foreign = [one.name for one in left if one.operator != own and (one.running or one in volumes)]
    if foreign and not os.environ.get("CALICO_LAB_TAKE_OVER"):
        raise ForeignLabError(
            f"the lab of another checkout is on this computer ({', '.join(sorted(foreign))}); next: run "
            "`make destroy` there, or set CALICO_LAB_TAKE_OVER=1 to have it removed with its saved work"
        )
    return left


def unfinished(state: Mapping[str, Any]) -> list[Unfinished]:
    """What a killed run may have created on hosts, from the state's pending operations."""
    found = []
    for operation in state.get("deployment", {}).get("pending_operations") or []:
        resource = operation["resource"]
        inputs = resource.get("inputs", {})
        # A volume may hold data, and can be created again.
        if (
            operation["type"] == "creating"
            and resource["type"] in ON_HOSTS
            and inputs.get("kind") != "volume"
        ):
            name = inputs.get("docker_name") or inputs["container"]
            remove = ["network", "rm"] if inputs.get("kind") == "network" else ["rm", "--force"]
            # The last word of an ssh command is the URL.
            found.append(Unfinished(inputs["ssh"].split()[-1], name, [*remove, name]))
    return found


def remove_unfinished(ssh_config: Path, resources: Iterable[Unfinished]) -> None:
    """Remove them from their hosts; `pulumi up` reports a host that does not answer."""
    for resource in resources:
        command = ["ssh", "-F", str(ssh_config), resource.host, shlex.join(["docker", *resource.remove])]
        subprocess.run(command, capture_output=True, check=False, timeout=60)


def on_controller(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The resources of an exported state that are on the controller's Docker engine."""
    resources = state.get("deployment", {}).get("resources") or []
    return [resource for resource in resources if "::controller::" in resource.get("provider", "")]


def gone(state: Mapping[str, Any]) -> list[str]:
    """The names of the host containers of an exported state that the controller's engine no longer has.

    Somebody has removed them, or the engine's data. `pulumi up` does not look, and would report no change.
    """
    made = [resource for resource in on_controller(state) if resource["type"] == CONTAINER]
    there = set(_docker("ps", "--all", "--quiet", "--no-trunc").split()) if made else set()
    return sorted(container["inputs"]["name"] for container in made if container["id"] not in there)


def sweep(stack: str, state: Mapping[str, Any]) -> list[Leftover]:
    """Remove from the controller's engine what has the stack's label and is not in its state; return it."""
    # Containers first, because they use networks and volumes.
    left = not_in_state(state, [leftover for kind in KINDS for leftover in _labelled(kind, stack)])
    for leftover in left:
        subprocess.run(["docker", *REMOVE[leftover.kind], leftover.id], check=True, stdout=subprocess.DEVNULL)
    return left


def _labelled(kind: str, stack: str) -> Iterable[Leftover]:
    ids = _docker(
        *KINDS[kind], "--quiet", "--no-trunc", "--filter", f"label=calico-lab.stack={stack}"
    ).split()
    if not ids:
        return
    for thing in json.loads(_docker(kind, "inspect", *ids)):
        labels = (thing["Config"] if kind == "container" else thing)["Labels"]
        yield Leftover(
            kind,
            thing.get("Id", thing["Name"]),
            thing["Name"].removeprefix("/"),
            labels.get("calico-lab.operator", ""),
            kind == "container" and thing["State"]["Running"],
        )


def _docker(*args: str) -> str:
    # `docker volume ls` has no --no-trunc, because a volume's id is its name and never cut.
    command = [arg for arg in args if not (args[0] == "volume" and arg == "--no-trunc")]
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout
