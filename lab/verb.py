"""What the verbs share: the option `--json`, errors, and output."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, RenderableType

from workspace import outputs as stack

_PIPE_WIDTH = 240
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


class NoLab(click.ClickException):
    """The stack or its config cannot be read."""

    exit_code = 2


@contextmanager
def usage_errors(*others: type[Exception]) -> Iterator[None]:
    """Let a StackError, or another of these errors, exit with code 2 and its message."""
    causes: tuple[type[Exception], ...] = (stack.StackError, *others)
    try:
        yield
    except causes as error:
        raise NoLab(str(error)) from None


def read_outputs(name: str) -> stack.Outputs:
    """Read the outputs of a stack.

    Raises:
        NoLab: They cannot be read.
    """
    with usage_errors():
        return stack.read(name)


def print_json(document: Mapping[str, Any]) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2))


def print_lines(lines: Iterable[str]) -> None:
    """Print text."""
    click.echo("\n".join(lines))


def print_tables(tables: Iterable[RenderableType]) -> None:
    """Print tables, in a pipe with a fixed width."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(table)
