"""`lab class`: the notebooks of a class, for its teacher; `share.py` has its command for files."""

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from diagnosis.capacity import gib
from diagnosis.notebooks import Backup, NotebookFacts, look
from lab import share
from lab.tables import bad, good, table, warning
from lab.verb import NoLab, json_option, print_json, print_tables, read_outputs, usage_errors
from workspace import outputs as stack
from workspace.outputs import Outputs

BACKUP_DAYS = 1
"""A backup that is older is shown as a warning."""
COLUMNS = (
    *("name", "host", "state", "health", "memoryBytes", "memoryLimitBytes", "cpuPercent", "kernels"),
    *("lastActivity", "workBytes", "backup", "backupVerified", "url"),
)


@click.group("class", invoke_without_command=True)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")
@click.pass_context
def command(context: click.Context, *, as_json: bool, as_csv: bool) -> None:
    """Show who is where: state, memory, processors, last activity, saved work and backups.

    Exit code 1 when a notebook that is on does not answer, or a host does not.
    """
    if context.invoked_subcommand:
        return
    outputs = read_outputs(context.obj)
    found, silent = look(outputs)
    rows = [row(facts, outputs) for facts in found]
    if as_json:
        print_json({"stack": context.obj, "notebooks": rows, "silentHosts": silent})
    elif as_csv:
        _write_csv(sys.stdout, COLUMNS, rows)
    else:
        print_tables(tables(found, silent, outputs))
    context.exit(1 if silent or any(problems(found, silent, outputs)) else 0)


@command.command("open")
@click.argument("name")
@click.pass_context
def open_(context: click.Context, name: str) -> None:
    """Print the link that opens a notebook, with its token.

    Whoever has the link can use the notebook: do not print it where others read it.
    """
    outputs, tokens = read_outputs(context.obj), _tokens(context.obj)
    if name not in tokens:
        raise NoLab(f"{name!r} is no notebook of stack {context.obj}; there are {', '.join(tokens)}")
    click.echo(link(outputs, name, tokens[name]))


@command.command("tokens")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def tokens_(context: click.Context, file: Path) -> None:
    """Write the names, links and tokens of all notebooks to a CSV file with mode 0600."""
    outputs, tokens = read_outputs(context.obj), _tokens(context.obj)
    rows = [
        {"name": name, "url": link(outputs, name, token), "token": token} for name, token in tokens.items()
    ]
    draft = file.with_name(f".{file.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as opened:
        _write_csv(opened, ("name", "url", "token"), rows)
    draft.replace(file)
    click.echo(f"{file}: {len(rows)} notebooks, mode 0600")


command.add_command(share.command)


def link(outputs: Outputs, name: str, token: str) -> str:
    """The URL that opens a notebook without a login page."""
    return f"{url(outputs, name)}lab?token={token}"


def url(outputs: Outputs, name: str) -> str:
    """The URL of a notebook, which asks for its token."""
    return f"{outputs.proxy_url.rstrip('/')}{outputs.notebooks[name]['path']}"


def row(facts: NotebookFacts, outputs: Outputs) -> dict[str, Any]:
    """A notebook for programs; the keys are a contract."""
    return {
        "name": facts.name,
        "host": facts.host,
        "state": facts.state,
        "health": facts.health,
        "memoryBytes": facts.memory,
        "memoryLimitBytes": facts.limit,
        "cpuPercent": facts.cpu,
        "kernels": facts.kernels,
        "lastActivity": facts.activity.isoformat() if facts.activity else None,
        "workBytes": facts.work,
        "backup": facts.backup.time.isoformat() if facts.backup else None,
        "backupVerified": facts.backup.verified if facts.backup else None,
        "url": url(outputs, facts.name),
    }


def tables(
    found: Sequence[NotebookFacts], silent: Mapping[str, str], outputs: Outputs
) -> Iterator[RenderableType]:
    """The class as a table, and below it what is wrong."""
    now = datetime.now(UTC)
    yield table(
        "Class",
        ("name", "host", "state", "memory", "CPU", "kernels", "last used", "saved work", "backup"),
        (
            (
                facts.name,
                facts.host,
                _state(facts),
                f"{gib(facts.memory)} of {gib(facts.limit)}",
                f"{facts.cpu:.0f} %",
                "" if facts.kernels is None else str(facts.kernels),
                f"{age(facts.activity, now)} ago" if facts.activity else "",
                f"{facts.work / 1e6:.1f} MB",
                _backup(facts.backup, now),
            )
            for facts in found
        ),
    )
    for host, reason in silent.items():
        yield Text.assemble((host, "bold red"), f": does not answer: {reason}; next: lab status")
    for where, what in problems(found, silent, outputs):
        yield Text.assemble((where, "bold red"), f": {what}")


def problems(
    found: Sequence[NotebookFacts], silent: Mapping[str, str], outputs: Outputs
) -> Iterator[tuple[str, str]]:
    """The notebooks that should answer and do not: the name, and the cause with the next step."""
    by_name = {facts.name: facts for facts in found}
    for name, notebook in outputs.notebooks.items():
        facts, host = by_name.get(name), notebook["host"]
        if host in silent or not notebook["enabled"]:
            continue
        if facts is None:
            yield name, f"{host} has no container {notebook['container']}; next: pulumi up --refresh"
        elif facts.state != "running" or facts.health == "unhealthy":
            next_step = f"{outputs.ssh[host]} docker logs --tail 20 {facts.container}"
            yield name, f"is {facts.state}, {facts.health}; next: {next_step}"


def age(then: datetime, now: datetime) -> str:
    """The time between two moments, in its largest unit."""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _state(facts: NotebookFacts) -> Text:
    if facts.state != "running":
        return Text("off" if facts.state == "exited" else facts.state)
    return good("running") if facts.health in ("none", "healthy") else warning(facts.health)


def _backup(backup: Backup | None, now: datetime) -> Text:
    if backup is None:
        return Text("none")
    shown = f"{age(backup.time, now)} ago"
    if backup.error:
        return bad(f"{shown}; the last one failed: {backup.error}")
    if not backup.verified:
        return bad(f"{shown}, not verified")
    return warning(shown) if (now - backup.time).days >= BACKUP_DAYS else good(shown)


def _tokens(name: str) -> dict[str, str]:
    with usage_errors():
        return stack.notebook_tokens(name)


def _write_csv(opened: Any, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:  # noqa: ANN401 - as csv
    writer = csv.DictWriter(opened, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
