"""The notebooks of a lab as its hosts see them: state, memory, activity, saved work, backups."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from components.hosts import remote
from workspace.outputs import Outputs

_SCRIPT = Path(__file__).with_name("scripts") / "notebooks.sh"
ASK_SECONDS = 60
_FIELDS = 10


@dataclass(frozen=True)
class Backup:
    """The last backup of a notebook."""

    time: datetime
    verified: bool
    """Whether a trial restore gave the same files."""
    error: str
    """Why the last one failed; empty when it has not."""


@dataclass(frozen=True)
class NotebookFacts:
    """A notebook on its host."""

    name: str
    host: str
    container: str
    state: str
    """As Docker calls it: `running`, `exited`."""
    health: str
    limit: int
    """The most memory that it may use, bytes."""
    memory: int
    """Bytes."""
    cpu: float
    """Percent of one processor."""
    work: int
    """Size of its saved work, bytes."""
    kernels: int | None
    """None where Jupyter did not answer."""
    activity: datetime | None
    """When it was last used."""
    backup: Backup | None
    """None where there is none."""


def look(outputs: Outputs) -> tuple[list[NotebookFacts], dict[str, str]]:
    """Ask the hosts that have notebooks, in parallel.

    Returns:
        The notebooks, and the reason of each host that did not answer.
    """
    hosts = sorted({notebook["host"] for notebook in outputs.notebooks.values()})
    ssh = {host: outputs.ssh[host] for host in hosts}
    answers = remote.ask(ssh, _SCRIPT.read_text(), {}, ASK_SECONDS)
    silent = {host: answer.error for host, answer in answers.items() if answer.status}
    found = {facts.name: facts for host, answer in answers.items() for facts in parse(host, answer.text)}
    return [found[name] for name in outputs.notebooks if name in found], silent


def parse(host: str, text: str) -> Iterator[NotebookFacts]:
    """Parse what a host prints."""
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != _FIELDS:
            continue
        name, container, state, health, limit, memory, cpu, work, activity, backup = fields
        used = _json(activity)
        yield NotebookFacts(
            name=name,
            host=host,
            container=container,
            state=state,
            health=health,
            limit=int(limit or 0),
            memory=int(memory or 0),
            cpu=float(cpu or 0),
            work=int(work or 0),
            kernels=used.get("kernels"),
            activity=datetime.fromisoformat(used["last_activity"]) if "last_activity" in used else None,
            backup=_backup(_json(backup)),
        )


def _json(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _backup(record: Mapping[str, Any]) -> Backup | None:
    if not record.get("time"):
        return None
    return Backup(
        datetime.fromisoformat(record["time"]), bool(record.get("verified")), str(record.get("error") or "")
    )
