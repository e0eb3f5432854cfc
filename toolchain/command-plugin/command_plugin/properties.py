"""Pulumi property values: conversion from and to protobuf, and comparison.

A value is a plain Python value, `UNKNOWN`, or `Secret(value)`. An asset stays the map that it is in protobuf,
with its signature and its hash, so that an input is returned as the same output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from google.protobuf import struct_pb2

# Constants of the protocol: pulumi/pulumi, sdk/go/common/resource/{sig,plugin/rpc.go}.
SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a signature
ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWNS: Final = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


class Unknown(Enum):
    """The type of `UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""A value that is not known during a preview."""


@dataclass(frozen=True)
class Secret:
    """A value that the engine encrypts in the state and hides in its output."""

    value: Value


Value: TypeAlias = "bool | float | str | list[Value] | dict[str, Value] | Unknown | Secret | None"
Properties: TypeAlias = dict[str, Value]


def read(message: struct_pb2.Struct) -> Properties:
    """Returns the properties in a protobuf message; nulls are left out, as by the official plugin."""
    fields = ((name, _read(value)) for name, value in message.fields.items())
    return {name: value for name, value in fields if value is not None}


def _read(message: struct_pb2.Value) -> Value:
    match message.WhichOneof("kind"):
        case "bool_value":
            return message.bool_value
        case "number_value":
            return message.number_value
        case "string_value":
            return UNKNOWN if message.string_value in UNKNOWNS else message.string_value
        case "list_value":
            return [_read(item) for item in message.list_value.values]
        case "struct_value":
            fields = read(message.struct_value)
            return Secret(fields.get("value")) if fields.get(SIGNATURE) == SECRET else fields
    return None


def write(properties: Mapping[str, Value]) -> struct_pb2.Struct:
    """Returns the protobuf message of some properties."""
    fields = {name: _write(value) for name, value in properties.items() if value is not None}
    return struct_pb2.Struct(fields=fields)


def _write(value: Value) -> struct_pb2.Value:  # noqa: PLR0911 - one for each type
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Unknown():
            return struct_pb2.Value(string_value=UNKNOWN_STRING)
        case Secret():
            return struct_pb2.Value(struct_value=write({SIGNATURE: SECRET, "value": value.value}))
        case list():
            items = [_write(item) for item in value]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
        case dict():
            return struct_pb2.Value(struct_value=write(value))


def reveal(value: Value) -> Any:  # noqa: ANN401 - the type depends on the property
    """Returns the plain value without secret marks."""
    match value:
        case Secret():
            return reveal(value.value)
        case list():
            return [reveal(item) for item in value]
        case dict():
            return {name: reveal(item) for name, item in value.items()}
    return value


def secret_strings(value: Value, *, hidden: bool = False) -> Iterator[str]:
    """Yields every string inside a value that is marked secret."""
    match value:
        case Secret():
            yield from secret_strings(value.value, hidden=True)
        case list():
            for item in value:
                yield from secret_strings(item, hidden=hidden)
        case dict():
            for item in value.values():
                yield from secret_strings(item, hidden=hidden)
        case str() if hidden:
            yield value


def _is_asset(value: Mapping[str, Value]) -> bool:
    return value.get(SIGNATURE) == ASSET and "hash" in value


def same(old: Value, new: Value) -> bool:
    """Whether two values are equal. 1 and true are not equal; assets are, if their hashes are."""
    match old, new:
        case Secret(), Secret():
            return same(old.value, new.value)
        case list(), list():
            return len(old) == len(new) and all(map(same, old, new))
        case dict(), dict() if _is_asset(old) and _is_asset(new):
            return old["hash"] == new["hash"]
        case dict(), dict():
            return old.keys() == new.keys() and all(same(item, new[name]) for name, item in old.items())
    return type(old) is type(new) and old == new


class Change(Enum):
    """What has happened to one property, as `PropertyDiff.Kind` names it."""

    ADD = "add"
    DELETE = "delete"
    UPDATE = "update"


def changes(old: Value, new: Value, path: str = "") -> dict[str, Change]:
    """Returns the paths that differ, such as `environment.A` and `triggers[0]`; a secret is one value."""
    found: dict[str, Change] = {}
    match old, new:
        case list(), list():
            for index, (before, after) in enumerate(zip(old, new, strict=False)):
                found |= changes(before, after, f"{path}[{index}]")
            for index in range(len(old), len(new)):
                found[f"{path}[{index}]"] = Change.ADD
            for index in range(len(new), len(old)):
                found[f"{path}[{index}]"] = Change.DELETE
        case dict(), dict() if not (_is_asset(old) or _is_asset(new)):
            for name in old.keys() | new.keys():
                step = _step(path, name)
                if name not in old:
                    found[step] = Change.ADD
                elif name not in new:
                    found[step] = Change.DELETE
                else:
                    found |= changes(old[name], new[name], step)
        case _ if not same(old, new):
            found[path] = Change.UPDATE
    return found


def _step(path: str, name: str) -> str:
    if not re.fullmatch(r"\w+", name, re.ASCII):
        quoted = name.replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{name}" if path else name
