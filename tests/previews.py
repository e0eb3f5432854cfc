"""Previews by the real engine, as data, through Pulumi's Automation API.

Tests run `pulumi up` and `pulumi destroy` by the CLI; the Automation API adds three calls of the CLI to each,
and would read secrets. The operations of a preview come from here, because the CLI prints them for people
only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pulumi import automation
from pulumi.automation.events import EngineEvent

from workspace.outputs import PROJECT


class ProgramError(Exception):
    """Pulumi failed; the message has what it printed."""


@dataclass(frozen=True)
class Change:
    """A step of a preview that is not `same`."""

    operation: str
    type: str
    name: str


@dataclass(frozen=True)
class Preview:
    """What an update would do."""

    operations: dict[str, int]
    """The number of resources by operation, `same` among them, as the summary at its end has them."""
    changes: list[Change]
    """The steps, in the engine's order."""
    text: str
    """What Pulumi printed, without colours."""


def preview(
    stack: str,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Preview:
    """Preview the program.

    Args:
        stack: The stack's name; it exists.
        config: Its config file, where it is not the stack's own.
        environment: Variables of the CLI beside those of this process, as that of the backend.

    Raises:
        ProgramError: The preview failed.
    """
    events: list[EngineEvent] = []
    printed: list[str] = []
    try:
        result = _stack(stack, tuple((environment or {}).items())).preview(
            config_file=str(config) if config else None,
            color="never",
            on_event=events.append,
            on_output=printed.append,
            on_error=printed.append,
        )
    except automation.CommandError as error:
        raise ProgramError(str(error)) from None
    steps = [event.resource_pre_event.metadata for event in events if event.resource_pre_event]
    return Preview(
        {str(operation): count for operation, count in result.change_summary.items()},
        [
            Change(automation.OpType(step.op).value, step.type, step.urn.rpartition("::")[2])
            for step in steps
            # The engine adds default providers to its events as they are needed, and counts none of them.
            if step.op != automation.OpType.SAME and not step.urn.endswith("::default")
        ],
        "\n".join(printed),
    )


@cache
def _stack(name: str, environment: tuple[tuple[str, str], ...]) -> automation.Stack:
    workspace = automation.LocalWorkspace(work_dir=str(PROJECT), env_vars=dict(environment))
    return automation.Stack.select(name, workspace)
