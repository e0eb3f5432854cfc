"""Checks the inputs of resources: names, types, required properties, defaults, and what is secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from .properties import ASSET, SIGNATURE, UNKNOWN, Properties, Secret, Value


class Kind(Enum):
    """The type of a property; the value is its name in an error message."""

    STRING = "a string"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    LIST = "a list"
    STRINGS = "a list of strings"
    STRING_MAP = "a map of strings"
    CONNECTION = "a connection"
    PROXY = "a connection to a proxy"
    SOURCE = "an asset or an archive"


@dataclass(frozen=True)
class Spec:
    """The properties of a resource or of a connection."""

    properties: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    defaults: Properties = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    """Properties that only the official plugin has."""


LOCAL_COMMAND: Final = "command:local:Command"
REMOTE_COMMAND: Final = "command:remote:Command"
COPY_TO_REMOTE: Final = "command:remote:CopyToRemote"

_PROXY: Final = Spec(
    {
        "host": Kind.STRING,
        "port": Kind.NUMBER,
        "user": Kind.STRING,
        "privateKey": Kind.STRING,
        "hostKey": Kind.STRING,
        "dialErrorLimit": Kind.NUMBER,
        "perDialTimeout": Kind.NUMBER,
    },
    required=("host",),
    defaults={"port": 22.0, "user": "root", "dialErrorLimit": 10.0, "perDialTimeout": 15.0},
    absent=frozenset({"password", "privateKeyPassword", "agentSocketPath"}),
)
CONNECTIONS: Final[Mapping[Kind, Spec]] = {
    Kind.CONNECTION: Spec(
        {**_PROXY.properties, "proxy": Kind.PROXY}, _PROXY.required, _PROXY.defaults, _PROXY.absent
    ),
    Kind.PROXY: _PROXY,
}

_COMMAND: Final = {
    "create": Kind.STRING,
    "update": Kind.STRING,
    "delete": Kind.STRING,
    "stdin": Kind.STRING,
    "logging": Kind.STRING,
    "triggers": Kind.LIST,
    "addPreviousOutputInEnv": Kind.BOOLEAN,
}
RESOURCES: Final[Mapping[str, Spec]] = {
    LOCAL_COMMAND: Spec(
        {**_COMMAND, "environment": Kind.STRING_MAP, "interpreter": Kind.STRINGS, "dir": Kind.STRING},
        absent=frozenset({"assetPaths", "archivePaths"}),
    ),
    # asyncssh sends environment variables without asking whether the server accepts them. The official plugin
    # fails when the server does not.
    REMOTE_COMMAND: Spec(
        {**_COMMAND, "connection": Kind.CONNECTION},
        required=("connection",),
        absent=frozenset({"environment"}),
    ),
    COPY_TO_REMOTE: Spec(
        {
            "connection": Kind.CONNECTION,
            "source": Kind.SOURCE,
            "remotePath": Kind.STRING,
            "triggers": Kind.LIST,
        },
        required=("connection", "source", "remotePath"),
    ),
}


def absent(what: str) -> str:
    """The error for what only the official plugin has."""
    return f"the stand-in of the command plugin does not have {what}; an official Pulumi has it"


def check(token: str, inputs: Properties) -> tuple[Properties, list[str]]:
    """Returns the inputs of a resource with defaults and secret marks, and what is wrong with them."""
    if token not in RESOURCES:
        return inputs, [absent(token)]
    return _check(RESOURCES[token], inputs)


def _check(spec: Spec, given: Properties) -> tuple[Properties, list[str]]:
    reasons = [f"Missing required field '{name}'" for name in spec.required if name not in given]
    checked: Properties = {}
    for name, value in (spec.defaults | given).items():
        if kind := spec.properties.get(name):
            checked[name], problems = _check_value(name, kind, value)
            reasons += problems
        else:
            reasons.append(absent(f"'{name}'") if name in spec.absent else f"Unrecognized field '{name}'")
    return checked, reasons


def _check_value(name: str, kind: Kind, value: Value) -> tuple[Value, list[str]]:
    given = value.value if isinstance(value, Secret) else value
    checked, reasons = given, []
    if isinstance(given, dict) and kind in CONNECTIONS:
        checked, problems = _check(CONNECTIONS[kind], given)
        reasons = [f"{name}: {problem}" for problem in problems]
    elif not _is(kind, given):
        reasons = [f"Field '{name}' must be {kind.value}"]
    elif kind is Kind.SOURCE and not (
        isinstance(given, dict) and given[SIGNATURE] == ASSET and "path" in given
    ):
        reasons = [absent(f"a '{name}' other than one file (FileAsset)")]
    secret = isinstance(value, Secret) or kind is Kind.CONNECTION or name == "privateKey"
    return (Secret(checked) if secret else checked), reasons


def _is(kind: Kind, value: Value) -> bool:  # noqa: PLR0911 - one return for each kind
    if isinstance(value, Secret):
        return _is(kind, value.value)
    if value is UNKNOWN:
        return True
    match kind:
        case Kind.STRING:
            return isinstance(value, str)
        case Kind.NUMBER:
            return isinstance(value, float)
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.LIST:
            return isinstance(value, list)
        case Kind.STRINGS:
            return isinstance(value, list) and all(_is(Kind.STRING, item) for item in value)
        case Kind.STRING_MAP:
            return isinstance(value, dict) and all(_is(Kind.STRING, item) for item in value.values())
        case Kind.SOURCE:
            return isinstance(value, dict) and SIGNATURE in value
        case Kind.CONNECTION | Kind.PROXY:
            return False
