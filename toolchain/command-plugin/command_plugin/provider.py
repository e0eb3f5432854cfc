"""The life of each resource: what diff, create, update, delete and invoke do, apart from the protocol."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from . import schema
from .output import Log, Output
from .properties import (
    ARCHIVE,
    SIGNATURE,
    UNKNOWN,
    Change,
    Properties,
    Secret,
    Value,
    changes,
    reveal,
    same,
)

COMMANDS: Final = frozenset({schema.LOCAL_COMMAND, schema.REMOTE_COMMAND})
PREVIOUS: Final = {"stdout": "PULUMI_COMMAND_STDOUT", "stderr": "PULUMI_COMMAND_STDERR"}


def diff(
    token: str, old_inputs: Properties, state: Properties, inputs: Properties, ignored: list[str]
) -> dict[str, tuple[Change, bool]]:
    """What changed between two sets of inputs, and whether it forces a replacement.

    Only a whole property is looked up among those that replace, as officially: of `triggers`, that the list
    comes or goes. A change inside it replaces too, by the SDK's `replace_on_changes=["triggers[*]"]`.
    """
    kept = {name: state[name] for name in ignored if name in state}
    inputs = {name: value for name, value in (inputs | kept).items() if not name.startswith("__")}
    specs = schema.RESOURCES[token].inputs
    return {
        path: (change, token == schema.COPY_FILE or specs.get(path, {}).get("replaceOnChanges", False))
        for path, change in changes(old_inputs, inputs).items()
    }


async def create(
    token: str, name: str, inputs: Properties, *, preview: bool, log: Log
) -> tuple[str, Properties]:
    """Create a resource: its id and its state. A command that fails leaves nothing behind."""
    if token not in COMMANDS:
        if preview:
            return "", inputs
        await _copy(token, inputs, log)
        return secrets.token_hex(4), inputs
    identity = name + secrets.token_hex(4)
    if preview:
        return identity, inputs | dict.fromkeys(schema.OUTPUT, UNKNOWN)
    outputs: Properties = dict.fromkeys(schema.OUTPUT, "")
    if "create" in inputs:
        outputs |= await _run(token, inputs, "create", outputs, log)
    return identity, inputs | outputs


async def update(token: str, state: Properties, inputs: Properties, *, preview: bool, log: Log) -> Properties:
    """Update a resource to new inputs: its new state."""
    if token not in COMMANDS:
        if not preview and _needs_copy(state, inputs):
            await _copy(token, inputs, log)
        return inputs
    names = schema.RESOURCES[token].outputs
    outputs = dict.fromkeys(schema.OUTPUT, "") | {name: state[name] for name in names if name in state}
    if preview:
        before = {name: value for name, value in state.items() if name not in names}
        return inputs | (outputs if same(before, inputs) else dict.fromkeys(outputs, UNKNOWN))
    command = "update" if "update" in inputs else "create"
    if command in inputs:
        outputs |= await _run(token, inputs, command, outputs, log)
    return inputs | outputs


async def delete(token: str, state: Properties, log: Log) -> None:
    """Delete a resource: run its `delete` command; copied files stay where they are."""
    if token in COMMANDS and "delete" in state:
        await _run(token, state, "delete", state, log)


async def run(arguments: Properties, log: Log) -> Properties:
    """`local.run`: run a command, in a preview too."""
    return arguments | await _run(schema.LOCAL_RUN, arguments, "command", {}, log)


async def _run(
    token: str, inputs: Properties, command: str, old: Mapping[str, Value], log: Log
) -> Properties:
    """Run one command of a resource: its new outputs."""
    previous: dict[str, str] = {}
    if reveal(inputs.get("addPreviousOutputInEnv")) is not False:
        previous = {variable: text for name, variable in PREVIOUS.items() if (text := reveal(old.get(name)))}
    async with Output(inputs, log) as output:
        if token == schema.REMOTE_COMMAND:
            # Imported here because asyncssh takes 0.2 s, which an update without changes does not need.
            from . import remote  # noqa: PLC0415

            await remote.run(inputs, command, previous, output=output, log=log)
            return output.outputs
        from . import local  # noqa: PLC0415

        await local.run(inputs, command, previous, output)
        return output.outputs | local.collect(inputs)


def _needs_copy(state: Properties, inputs: Properties) -> bool:
    """Whether an update copies again: not for another connection alone, as officially."""
    return any(
        not same(Secret(state.get(name)), Secret(inputs.get(name))) for name in ("source", "remotePath")
    )


async def _copy(token: str, inputs: Properties, log: Log) -> None:
    from . import remote, upload  # noqa: PLC0415

    endpoint = remote.Endpoint.of(inputs["connection"])
    remote_path: str = reveal(inputs["remotePath"])
    if token == schema.COPY_FILE:
        await upload.copy_file(endpoint, reveal(inputs["localPath"]), remote_path, log)
        return
    source = reveal(inputs["source"])
    if source.get("path"):
        await upload.copy_path(endpoint, source["path"], remote_path, log)
    elif source[SIGNATURE] != ARCHIVE:
        await upload.copy_text(endpoint, source.get("text", ""), remote_path, log)
