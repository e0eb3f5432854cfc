"""Describes what a field of the config accepts, from the JSON Schema of its model. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

FORMATS = {
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ipv4network": "an IPv4 network",
    "ipv6network": "an IPv6 network",
    "path": "a path",
}


def accepted(field: Schema) -> str:
    """Returns what a field accepts, as text; choices are in backticks."""
    if "$ref" in field:
        return "a map, see below"
    if options := field.get("anyOf") or field.get("oneOf"):
        words = [accepted(option) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    return _plain(field)


def field_at(schema: Schema, location: Sequence[int | str]) -> Schema | None:
    """Find the schema of a field.

    Args:
        schema: The schema of the whole config.
        location: The path of the field: keys, and indexes of lists.

    Returns:
        The schema of the field; None when the config has no such field.
    """
    found = [schema]
    for step in location:
        alternatives = [one for field in found for one in _alternatives(field, schema)]
        found = [child for one in alternatives for child in _children(one, step)]
    return found[0] if found else None


def values(field: Schema) -> Schema:
    """Returns the schema of the values of a map, whose names may have a pattern."""
    found: object = field.get("additionalProperties") or next(
        iter(field.get("patternProperties", {}).values()), {}
    )
    return found if isinstance(found, dict) else {}


def _alternatives(field: Schema, schema: Schema) -> Iterator[Schema]:
    if "$ref" in field:
        yield schema["$defs"][field["$ref"].rpartition("/")[2]]
        return
    options = [option for kind in ("anyOf", "oneOf", "allOf") for option in field.get(kind, [])]
    for option in options:
        yield from _alternatives(option, schema)
    if not options:
        yield field


def _children(field: Schema, step: int | str) -> Iterator[Schema]:
    if isinstance(step, int):
        if isinstance(field.get("items"), dict):
            yield field["items"]
    elif step in field.get("properties", {}):
        yield field["properties"][step]
    elif found := values(field):
        yield found


def _plain(field: Schema) -> str:
    match field["type"]:
        case "array":
            return f"a list of: {accepted(field['items'])}" + (
                ", at least one" if "minItems" in field else ""
            )
        case "object":
            if not (found := values(field)):
                return "a map, see below"
            return f"by name: {accepted(found)}" + (", at least one" if "minProperties" in field else "")
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
    like = f"text like `{field['pattern']}`" if "pattern" in field else "text"
    return f"{like} of at most {field['maxLength']} characters" if "maxLength" in field else like
