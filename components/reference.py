"""Writes docs/config.md from the config's models: `python -m components.reference`.

The models are the documentation, so the table cannot say anything else than what is accepted; a test compares
the file with what this module renders.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.config import NAMESPACE, LabConfig

FILE = Path(__file__).resolve().parents[1] / "docs" / "config.md"
INTRODUCTION = f"""\
# The lab's config

`Pulumi.<stack>.yaml` describes a lab, and `Pulumi.lab.yaml` the original one. This file is generated from the
models in `components/` by `make docs`. What is not in these tables is refused, together with everything else
that is wrong, before anything is touched: the message has the path, the value, and what would be accepted.

A section is a key of its own in the file, `{NAMESPACE}:<section>`; a value can also be set by its path:

    pulumi config set --path '{NAMESPACE}:proxy.port' 8080
"""

FORMATS = {
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ipv4network": "an IPv4 network",
    "ipv6network": "an IPv6 network",
    "path": "a path",
}

Schema = Mapping[str, Any]


def render() -> str:
    """The whole of docs/config.md."""
    schema = LabConfig.model_json_schema(by_alias=True)
    definitions: Mapping[str, Schema] = schema["$defs"]
    required = schema.get("required", [])
    texts = [INTRODUCTION]
    for section, field in schema["properties"].items():
        needed = "" if section in required else " May be left out."
        texts.append(f"## `{NAMESPACE}:{section}`\n\n{_description(field)}{needed}\n")
        for path, model in _models(section, field, definitions):
            texts.append(_table(path, model))
    return "\n".join(texts)


def _models(path: str, field: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """The models under a field, each with the path at which it stands; the field's own come first."""
    for place, name in _references(path, field):
        model = definitions[name]
        yield place, model
        for key, child in model.get("properties", {}).items():
            yield from _models(f"{place}.{key}", child, definitions)


def _references(path: str, field: Schema) -> Iterator[tuple[str, str]]:
    if "$ref" in field:
        yield path, field["$ref"].rpartition("/")[2]
    for kind in ("anyOf", "oneOf", "allOf"):
        for option in field.get(kind, []):
            yield from _references(path, option)
    if isinstance(field.get("items"), dict):
        yield from _references(f"{path}[]", field["items"])
    if values := _values(field):
        yield from _references(f"{path}.<name>", values)


def _values(field: Schema) -> Schema:
    """The schema of a map's values; its names may be bound to a pattern."""
    found: object = field.get("additionalProperties") or next(
        iter(field.get("patternProperties", {}).values()), {}
    )
    return found if isinstance(found, dict) else {}


def _table(path: str, model: Schema) -> str:
    lines = [f"`{path}`: {_description(model)}\n", "| key | accepts | default | |", "|---|---|---|---|"]
    for key, field in model.get("properties", {}).items():
        accepts = _accepts(field)
        default = "required" if key in model.get("required", []) else _default(field)
        lines.append(f"| `{key}` | {_cell(accepts)} | {_cell(default)} | {_cell(_description(field))} |")
    return "\n".join([*lines, ""])


def _accepts(field: Schema) -> str:
    """What a field accepts, in words."""
    if "$ref" in field:
        return "a map, see below"
    if options := field.get("anyOf") or field.get("oneOf"):
        words = [_accepts(option) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    return _plain(field)


def _plain(field: Schema) -> str:
    match field["type"]:
        case "array":
            return f"a list of: {_accepts(field['items'])}"
        case "object":
            return f"by name: {_accepts(_values(field))}"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return FORMATS[field["format"]] if "format" in field else _text(field)
        case kind:
            return " ".join(["a whole number" if kind == "integer" else "a number", *_range(field)])


def _range(field: Schema) -> Iterator[str]:
    if "minimum" in field:
        yield f"from {field['minimum']}"
    if "maximum" in field:
        yield f"to {field['maximum']}"


def _text(field: Schema) -> str:
    return f"text like `{field['pattern']}`" if "pattern" in field else "text"


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None or value in ("", [], {}):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    # A plain value is a whole document to YAML, and ends with a mark of that.
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _description(field: Schema) -> str:
    return " ".join(str(field.get("description", "")).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def main() -> None:
    """Write the file."""
    FILE.write_text(render())


if __name__ == "__main__":
    main()
