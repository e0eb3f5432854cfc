"""What the plugin serves: its resources and its function, their properties, types, defaults and secrets.

One description for three uses: `GetSchema` hands it out in Pulumi's schema language, `Check` holds inputs
against it and fills in defaults and secret marks, `Diff` reads from it what forces a replacement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from . import VERSION
from .properties import ARCHIVE, ASSET, SIGNATURE, UNKNOWN, Properties, Secret, Value

Spec: TypeAlias = "dict[str, Any]"

STRING: Final[Spec] = {"type": "string"}
STRINGS: Final[Spec] = {"type": "array", "items": STRING}
STRING_MAP: Final[Spec] = {"type": "object", "additionalProperties": STRING}
INTEGER: Final[Spec] = {"type": "integer"}
NUMBER: Final[Spec] = {"type": "number"}
BOOLEAN: Final[Spec] = {"type": "boolean"}
ANYTHING: Final[Spec] = {"type": "array", "items": {"$ref": "pulumi.json#/Any"}}
ASSETS: Final[Spec] = {"type": "object", "additionalProperties": {"$ref": "pulumi.json#/Asset"}}
LOGGING: Final = [{"value": value} for value in ("stdout", "stderr", "stdoutAndStderr", "none")]


def _secret(spec: Spec) -> Spec:
    return {**spec, "secret": True}


ENDPOINT: Final[Spec] = {
    "user": {**STRING, "default": "root"},
    "password": _secret(STRING),
    "host": STRING,
    "port": {**NUMBER, "default": 22},
    "privateKey": _secret(STRING),
    "privateKeyPassword": _secret(STRING),
    "agentSocketPath": STRING,
    "dialErrorLimit": {**INTEGER, "default": 10},
    "perDialTimeout": {**INTEGER, "default": 15},
    "hostKey": STRING,
}
PROXY: Final = {"$ref": "#/types/command:remote:ProxyConnection"}
TYPES: Final[Mapping[str, Spec]] = {
    "command:local:Logging": {"type": "string", "enum": LOGGING},
    "command:remote:Logging": {"type": "string", "enum": LOGGING},
    "command:remote:Connection": {
        "type": "object",
        "properties": {**ENDPOINT, "proxy": PROXY},
        "required": ["host"],
    },
    "command:remote:ProxyConnection": {"type": "object", "properties": ENDPOINT, "required": ["host"]},
}

TRIGGERS: Final[Spec] = {**ANYTHING, "replaceOnChanges": True}
CONNECTION: Final[Spec] = _secret({"$ref": "#/types/command:remote:Connection"})
LIFECYCLE: Final[Spec] = {
    "create": STRING,
    "update": STRING,
    "delete": STRING,
    "triggers": TRIGGERS,
    "addPreviousOutputInEnv": BOOLEAN,
    "environment": STRING_MAP,
    "stdin": STRING,
}
LOCAL: Final[Spec] = {
    "interpreter": STRINGS,
    "dir": STRING,
    "assetPaths": STRINGS,
    "archivePaths": STRINGS,
    "logging": {"$ref": "#/types/command:local:Logging"},
}
OUTPUT: Final[Spec] = {"stdout": STRING, "stderr": STRING}
FILES: Final[Spec] = {"assets": ASSETS, "archive": {"$ref": "pulumi.json#/Archive"}}


class Resource(NamedTuple):
    """A resource type: its inputs, the required ones among them, and the outputs that it adds to them."""

    inputs: Spec
    required: list[str]
    outputs: Spec

    @property
    def spec(self) -> Spec:
        """The resource in Pulumi's schema language."""
        always = [name for name in self.outputs if name in OUTPUT]
        return {
            "inputProperties": self.inputs,
            "requiredInputs": self.required,
            "properties": self.inputs | self.outputs,
            "required": self.required + always,
        }


LOCAL_COMMAND: Final = "command:local:Command"
REMOTE_COMMAND: Final = "command:remote:Command"
COPY_TO_REMOTE: Final = "command:remote:CopyToRemote"
COPY_FILE: Final = "command:remote:CopyFile"
LOCAL_RUN: Final = "command:local:run"

RESOURCES: Final[Mapping[str, Resource]] = {
    LOCAL_COMMAND: Resource(LIFECYCLE | LOCAL, [], OUTPUT | FILES),
    REMOTE_COMMAND: Resource(
        {"connection": CONNECTION, **LIFECYCLE, "logging": {"$ref": "#/types/command:remote:Logging"}},
        ["connection"],
        OUTPUT,
    ),
    COPY_TO_REMOTE: Resource(
        {
            "connection": CONNECTION,
            "source": {"$ref": "pulumi.json#/Asset"},
            "remotePath": STRING,
            "triggers": TRIGGERS,
        },
        ["connection", "source", "remotePath"],
        {},
    ),
    COPY_FILE: Resource(
        {"connection": CONNECTION, "localPath": STRING, "remotePath": STRING, "triggers": ANYTHING},
        ["connection", "localPath", "remotePath"],
        {},
    ),
}
_RUN_INPUTS: Final[Spec] = {
    "command": STRING,
    **{
        name: spec
        for name, spec in (LIFECYCLE | LOCAL).items()
        if name not in {"create", "update", "delete", "triggers"}
    },
}


def package() -> str:
    """The package's schema, as `GetSchema` answers it."""
    return json.dumps(
        {
            "name": "command",
            "version": VERSION,
            "types": TYPES,
            "provider": {},
            "resources": {token: resource.spec for token, resource in RESOURCES.items()},
            "functions": {
                LOCAL_RUN: {
                    "inputs": {"type": "object", "properties": _RUN_INPUTS, "required": ["command"]},
                    "outputs": {
                        "type": "object",
                        "properties": _RUN_INPUTS | OUTPUT | FILES,
                        "required": ["command", *OUTPUT],
                    },
                }
            },
        }
    )


class Failure(NamedTuple):
    """An input that is refused: the top-level property and why."""

    property: str
    reason: str


def check_resource(token: str, inputs: Properties) -> tuple[Properties, list[Failure]]:
    """The inputs of a resource with defaults and secret marks, and what is wrong with them."""
    resource = RESOURCES[token]
    checked, failures = _check(token, resource.inputs, resource.required, inputs)
    if token == COPY_TO_REMOTE and "source" in checked:
        failures += _check_source(checked["source"])
    return checked, failures


def check_run(arguments: Properties) -> tuple[Properties, list[Failure]]:
    """The same for the arguments of `local.run`."""
    return _check(LOCAL_RUN, _RUN_INPUTS, ["command"], arguments)


def _check(
    owner: str, specs: Spec, required: list[str], given: Properties
) -> tuple[Properties, list[Failure]]:
    checked: Properties = {}
    failures = [
        Failure(name, f"Unrecognized field '{name}' on '{owner}'") for name in given if name not in specs
    ]
    for name, spec in specs.items():
        if name in given:
            checked[name], problems = _check_value(f"{owner}.{name}", spec, given[name])
            failures += [Failure(name, problem) for problem in problems]
        elif "default" in spec:
            checked[name] = spec["default"]
        elif name in required:
            failures.append(Failure(name, f"Missing required field '{name}' on '{owner}'"))
    return checked, failures


def _check_value(path: str, spec: Spec, value: Value) -> tuple[Value, list[str]]:
    if isinstance(value, Secret):
        inner, problems = _check_value(path, spec, value.value)
        return inner if isinstance(inner, Secret) else Secret(inner), problems
    inner, problems = (value, []) if value is UNKNOWN else _check_known(path, spec, value)
    return (Secret(inner) if spec.get("secret") else inner), problems


def _check_known(  # noqa: PLR0911 - one for each kind
    path: str, spec: Spec, value: Value
) -> tuple[Value, list[str]]:
    owner, _, name = path.rpartition(".")
    kind = spec.get("type") or spec["$ref"].rpartition("/")[2]
    match kind, value:
        case (("string" | "command:local:Logging" | "command:remote:Logging"), str()):
            return value, []
        case "boolean", bool():
            return value, []
        case (("number" | "integer"), float() | int()) if not isinstance(value, bool):
            return value, []
        case "array", list():
            items = [_check_value(f"{path}[{i}]", spec["items"], item) for i, item in enumerate(value)]
            return [item for item, _ in items], [problem for _, problems in items for problem in problems]
        case "object", dict() if SIGNATURE not in value:
            entries = {
                key: _check_value(f"{path}[{key}]", spec["additionalProperties"], item)
                for key, item in value.items()
            }
            return (
                {key: item for key, (item, _) in entries.items()},
                [problem for _, problems in entries.values() for problem in problems],
            )
        case (("command:remote:Connection" | "command:remote:ProxyConnection"), dict()):
            declared = TYPES[kind]
            inner, failures = _check(path, declared["properties"], declared["required"], value)
            return inner, [failure.reason for failure in failures]
        case "Asset", dict() if value.get(SIGNATURE) in {ASSET, ARCHIVE}:
            return value, []
        case "Any", _:
            return value, []
    return value, [f"Field '{name}' on '{owner}' must be a '{kind}'; got {_kind(value)} instead"]


def _kind(value: Value) -> str:
    match value:
        case bool():
            return "a boolean"
        case float() | int():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an asset" if SIGNATURE in value else "an object"
    return "nothing"


def _check_source(source: Value) -> list[Failure]:
    """What `CopyToRemote` can copy: a file or a text; for an archive, a path."""
    source = source.value if isinstance(source, Secret) else source
    if not isinstance(source, dict) or SIGNATURE not in source:
        return []
    if source[SIGNATURE] == ARCHIVE and not source.get("path"):
        return [Failure("archive", "archive must be a path to a file or directory")]
    if source[SIGNATURE] == ASSET and source.get("uri"):
        return [Failure("asset", "asset must be a path-based file asset or a text asset")]
    return []
