"""What diff, create, update and delete do with each resource, apart from the protocol."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from .check import COPY_TO_REMOTE, LOCAL_COMMAND, REMOTE_COMMAND
from .properties import UNKNOWN, Change, Properties, Value, changes, reveal, same

# `local`, `remote` and `output` are imported where a command runs, because an update without changes needs
# none of them, and the SSH library takes 0.2 s.

COMMANDS: Final = frozenset({LOCAL_COMMAND, REMOTE_COMMAND})
OUTPUTS: Final = ("stdout", "stderr")

Show: TypeAlias = Callable[[str], Awaitable[None]]
"""Shows a message beside the resource while it is being changed."""


class CommandError(Exception):
    """A command or a copy that could not be started, or that failed."""


def diff(
    old_inputs: Properties, state: Properties, inputs: Properties, ignored: list[str]
) -> dict[str, Change]:
    """Returns the paths at which the inputs differ; `ignored` properties stay as they are in the state."""
    kept = {name: state[name] for name in ignored if name in state}
    inputs = {name: value for name, value in (inputs | kept).items() if not name.startswith("__")}
    return changes(old_inputs, inputs)


async def create(
    token: str, name: str, inputs: Properties, *, preview: bool, show: Show
) -> tuple[str, Properties]:
    """Creates a resource and returns its ID and its state."""
    if token == COPY_TO_REMOTE:
        if preview:
            return "", inputs
        await _copy(inputs, show)
        return os.urandom(4).hex(), inputs
    identity = name + os.urandom(4).hex()
    if preview:
        return identity, inputs | dict.fromkeys(OUTPUTS, UNKNOWN)
    outputs: Properties = dict.fromkeys(OUTPUTS, "")
    if "create" in inputs:
        outputs = await _run(token, inputs, "create", outputs, show)
    return identity, inputs | outputs


async def update(
    token: str, state: Properties, inputs: Properties, *, preview: bool, show: Show
) -> Properties:
    """Updates a resource and returns its new state."""
    if token == COPY_TO_REMOTE:
        # As with the official plugin, another connection alone is no reason to copy again.
        if not preview and not all(_equal(state, inputs, name) for name in ("source", "remotePath")):
            await _copy(inputs, show)
        return inputs
    outputs: Properties = {name: state.get(name, "") for name in OUTPUTS}
    if preview:
        before = {name: value for name, value in state.items() if name not in OUTPUTS}
        return inputs | (outputs if same(before, inputs) else dict.fromkeys(OUTPUTS, UNKNOWN))
    command = "update" if "update" in inputs else "create"
    if command in inputs:
        outputs = await _run(token, inputs, command, outputs, show)
    return inputs | outputs


async def delete(token: str, state: Properties, show: Show) -> None:
    """Runs the `delete` command of a resource; a copied file stays."""
    if token in COMMANDS and "delete" in state:
        await _run(token, state, "delete", state, show)


def _equal(state: Properties, inputs: Properties, name: str) -> bool:
    return same(reveal(state.get(name)), reveal(inputs.get(name)))


async def _run(
    token: str, inputs: Properties, command: str, old: Mapping[str, Value], show: Show
) -> Properties:
    """Runs one command of a resource and returns its outputs."""
    from .output import Output  # noqa: PLC0415

    previous: dict[str, str] = {}
    if reveal(inputs.get("addPreviousOutputInEnv")) is not False:
        # PULUMI_COMMAND_STDOUT and PULUMI_COMMAND_STDERR; a variable whose output is empty is not set.
        previous = {
            f"PULUMI_COMMAND_{name.upper()}": text for name in OUTPUTS if (text := reveal(old.get(name)))
        }
    async with Output(inputs, show) as output:
        if token == REMOTE_COMMAND:
            from . import remote  # noqa: PLC0415

            await remote.run(inputs, command, previous, output, show)
        else:
            from . import local  # noqa: PLC0415

            await local.run(inputs, command, previous, output)
        return output.outputs


async def _copy(inputs: Properties, show: Show) -> None:
    from . import remote  # noqa: PLC0415

    plain = reveal(inputs)
    await remote.copy(plain["connection"], plain["source"]["path"], plain["remotePath"], show)
