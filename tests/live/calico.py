"""Calico's datastore, through `calicoctl` on the first host."""

from typing import Any

import yaml

from components.hosts import remote
from workspace.outputs import Outputs

SCRIPT = """\
set -eu
. /etc/calico-lab/calico/environment.sh
calicoctl $COMMAND
"""
APPLY = """\
set -eu
. /etc/calico-lab/calico/environment.sh
calicoctl apply -f - <<<"$DOCUMENT"
"""


def calicoctl(outputs: Outputs, command: str) -> str:
    """Run calicoctl on the first host."""
    return _run(outputs, SCRIPT, {"COMMAND": command})


def apply(outputs: Outputs, document: dict[str, Any]) -> None:
    """Write a resource into the datastore, as an operator would."""
    _run(outputs, APPLY, {"DOCUMENT": yaml.safe_dump(document)})


def resources(outputs: Outputs, kind: str) -> list[dict[str, Any]]:
    """The resources of a kind."""
    found: list[dict[str, Any]] = yaml.safe_load(calicoctl(outputs, f"get {kind} --output yaml"))["items"]
    return found


def names(outputs: Outputs, kind: str) -> set[str]:
    """The names of the resources of a kind."""
    return {resource["metadata"]["name"] for resource in resources(outputs, kind)}


def _run(outputs: Outputs, script: str, variables: dict[str, str]) -> str:
    answer = remote.run(next(iter(outputs.ssh.values())), script, variables)
    assert answer.status == 0, answer.error
    return answer.text
