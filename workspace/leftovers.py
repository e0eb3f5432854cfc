"""What an earlier run left on the controller's Docker engine, and that no state knows any more.

A run that is killed between making a thing and writing it down, or whose checkout was deleted, leaves
machines, networks and volumes behind that would be in the way of the next `up`. They carry the lab's labels:
the stack's name, and the fingerprint of the key that opens the machines, which tells one checkout's lab from
another's.
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


ON_HOSTS = {
    "docker:index/container:Container": ["rm", "--force"],
    "docker:index/network:Network": ["network", "rm"],
}
"""What cannot be made twice under one name; a volume can, and a script may run twice."""


class ForeignLabError(RuntimeError):
    """Another checkout's lab runs on this machine."""


@dataclass(frozen=True)
class Leftover:
    """A thing of the lab on the engine."""

    kind: str
    id: str
    name: str
    operator: str
    running: bool


def operator_of(state: Mapping[str, Any]) -> str | None:
    """The fingerprint of the operator's key in an exported state, or None where there is none."""
    for resource in state.get("deployment", {}).get("resources") or []:
        if resource["urn"].endswith("::operator"):
            key = base64.b64decode(resource["outputs"]["public_key"].split()[1])
            return base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return None


def unknown_to(state: Mapping[str, Any], found: Iterable[Leftover]) -> list[Leftover]:
    """Those things that an exported state does not hold.

    Raises:
        ForeignLabError: One of them is a running machine that another checkout's key opens.
    """
    known = {resource.get("id") for resource in state.get("deployment", {}).get("resources") or []}
    left = [thing for thing in found if thing.id not in known]
    own = operator_of(state)
    foreign = [thing.name for thing in left if thing.running and thing.operator != own]
    if foreign and not os.environ.get("CALICO_LAB_TAKE_OVER"):
        raise ForeignLabError(
            f"the lab of another checkout runs on this machine ({', '.join(sorted(foreign))}): take it down "
            "there with `make destroy`, or set CALICO_LAB_TAKE_OVER=1 to have it removed"
        )
    return left


@dataclass(frozen=True)
class Unfinished:
    """A thing on a host whose making was begun by a run that was killed."""

    host: str
    name: str
    remove: list[str]
    """The arguments of `docker` that remove it."""


def unfinished(state: Mapping[str, Any]) -> list[Unfinished]:
    """What a killed run may have made on the hosts and not written down; the engine notes what it begins."""
    deployment = state.get("deployment", {})
    hosts = {
        resource["urn"]: resource["inputs"]["host"]
        for resource in deployment.get("resources") or []
        if resource["type"] == "pulumi:providers:docker" and "host" in resource.get("inputs", {})
    }
    begun = [
        operation["resource"]
        for operation in deployment.get("pending_operations") or []
        if operation["type"] == "creating" and operation["resource"]["type"] in ON_HOSTS
    ]
    found = []
    for resource in begun:
        host = hosts.get(resource["provider"].rpartition("::")[0])
        if host:
            name = resource["inputs"]["name"]
            found.append(Unfinished(host, name, [*ON_HOSTS[resource["type"]], name]))
    return found


def remove_unfinished(ssh_config: Path, things: Iterable[Unfinished]) -> None:
    """Remove them where they are; a host that does not answer is for `pulumi up` to report."""
    for thing in things:
        command = ["ssh", "-F", str(ssh_config), thing.host, shlex.join(["docker", *thing.remove])]
        subprocess.run(command, capture_output=True, check=False, timeout=60)


def sweep(stack: str, state: Mapping[str, Any]) -> list[Leftover]:
    """Remove what the engine has of a stack and its state does not know; return what was removed."""
    # Containers first: they hold networks and volumes.
    left = unknown_to(state, [thing for kind in KINDS for thing in _labelled(kind, stack)])
    for thing in left:
        subprocess.run(["docker", *REMOVE[thing.kind], thing.id], check=True, stdout=subprocess.DEVNULL)
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
    # `docker volume ls` knows no --no-trunc: a volume's id is its name, always whole.
    command = [arg for arg in args if not (args[0] == "volume" and arg == "--no-trunc")]
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout
