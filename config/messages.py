"""Turns validation errors into lines: `<path>: <value>: <problem>; <what is accepted>`.

Lines have a maximum length and no control characters, whatever the file holds, because they are printed to a
terminal: long values are cut, and control characters are escaped.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from config.accepted import Schema, accepted, field_at

VALUE = 60
"""Maximum number of characters of a value or a key in a message."""
MESSAGE = 400
"""Maximum number of characters of a line."""
ELLIPSIS = "…"
# Pydantic marks the key of a map in a location with this word.
_KEY = "[key]"
_PROVIDERS = ("docker", "existing")


def shortened(text: str, limit: int) -> str:
    """Returns a text cut to `limit` characters, with control characters escaped."""
    start = text if len(text) <= limit else text[: limit - 1] + ELLIPSIS
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)


def quoted(value: object) -> str:
    """Returns a value as a message shows it: text is cut, and of a map or list only the type is shown."""
    if isinstance(value, Mapping):
        return "a map" if value else "an empty map"
    if isinstance(value, str):
        return repr(shortened(value, VALUE)).replace("\\\\", "\\")
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    # As YAML writes them.
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else shortened(str(value), VALUE)


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one line for each problem.

    Args:
        error: The validation error of the file.
        model: The model of the whole config.
    """
    schema = model.model_json_schema(by_alias=True)
    details = [{**detail, "loc": _location(detail)} for detail in error.errors(include_url=False)]
    lines = [_sentence(detail, schema) for detail in details if not _is_other_branch(detail, details)]
    # Two branches of a union can give the same line.
    return list(dict.fromkeys(lines))


def _location(detail: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Returns the path of the value in the file, without the names of the union's branches."""
    location = tuple(detail["loc"])
    if location[:1] == ("hosts",) and location[1:2] and location[1] in _PROVIDERS:
        location = (location[0], *location[2:])
    # For an unknown key the last step is that key, also when it looks like a branch.
    last = len(location) - (detail["type"] == "extra_forbidden")
    return tuple(
        step for index, step in enumerate(location) if index >= last or not _is_branch(step) or step == _KEY
    )


def _is_branch(step: int | str) -> bool:
    return isinstance(step, str) and step.endswith("]") and "[" in step


def _is_other_branch(detail: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another branch of the union has an error deeper in the value, so that one was meant."""
    location = detail["loc"]
    return detail["type"] == "literal_error" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in details
    )


def _sentence(detail: Mapping[str, Any], schema: Schema) -> str:
    location, context = detail["loc"], detail.get("ctx", {})
    path = _path(step for step in location if step != _KEY)
    match detail["type"]:
        case "extra_forbidden":
            return f"{path}: this key is not known; docs/config.md lists the keys"
        case "missing":
            return f"{path}: this key is required"
        case "union_tag_not_found":
            return f"{path}.provider: this key is required"
        case "union_tag_invalid":
            line = f"{path}.provider: {quoted(context['tag'])}: must be one of {', '.join(_PROVIDERS)}"
        case "at":
            line = f"{path}.{context['path']}: {quoted(context['value'])}: {context['problem']}"
        case "value_error" if isinstance(detail["input"], dict | list):
            line = f"{path}: {context['error']}"
        case "value_error":
            line = f"{path}: {quoted(detail['input'])}: {context['error']}"
        case "string_pattern_mismatch" if location[-1] == _KEY:
            line = f"{path}: {quoted(detail['input'])}: must be a name like `{context['pattern']}`"
        case _:
            line = f"{path}: {quoted(detail['input'])}: must be {_words(field_at(schema, location))}"
    return line


def _words(field: Schema | None) -> str:
    if field is None or "$ref" in field:
        return "a map"
    words = accepted(field).replace(", see below", "")
    choices = "enum" in field or field.get("type") == "boolean"
    if words.startswith("by name"):
        words = f"a map, {words}"
    return f"one of {words.replace('`', '')}" if choices else words


def _path(location: Iterable[int | str]) -> str:
    return "".join(_steps(location)).removeprefix(".")


def _steps(location: Iterable[int | str]) -> Iterator[str]:
    for step in location:
        yield f"[{step}]" if isinstance(step, int) else f".{shortened(step, VALUE)}"
