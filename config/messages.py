"""What is wrong in the config, a line for each problem: `<path>: <value>: <problem>; <what is accepted>`.

Owes: no line is longer than a screen's or breaks it, whatever the file holds: of a value it quotes the
beginning, and control characters are escaped.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from config.accepted import Schema, accepted, field_at

VALUE = 60
"""Characters that are quoted of a value, or of a key, at the most."""
MESSAGE = 400
"""Characters of a problem's line at the most."""
ELLIPSIS = "…"
# Pydantic's own marks in a location: the name of a map's key, and that of a branch of a union.
_KEY = "[key]"
_PROVIDERS = ("docker", "existing")


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, on one line, and nothing in it that a terminal would obey."""
    start = text if len(text) <= limit else text[: limit - 1] + ELLIPSIS
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)


def quoted(value: object) -> str:
    """A value as a message shows it: the beginning of a text, and of what holds others only the kind."""
    if isinstance(value, Mapping):
        return "a map" if value else "an empty map"
    if isinstance(value, str):
        return repr(shortened(value, VALUE)).replace("\\\\", "\\")
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    # As the file has it.
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else shortened(str(value), VALUE)


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Say what is wrong, a sentence for each problem.

    Args:
        error: What the model said of the file.
        model: The model of the whole config.
    """
    schema = model.model_json_schema(by_alias=True)
    details = [{**detail, "loc": _location(detail)} for detail in error.errors(include_url=False)]
    told = [_sentence(detail, schema) for detail in details if not _is_beside(detail, details)]
    # The branches of a union say the same.
    return list(dict.fromkeys(told))


def _location(detail: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where the value stands in the file."""
    location = tuple(detail["loc"])
    if location[:1] == ("hosts",) and location[1:2] and location[1] in _PROVIDERS:
        location = (location[0], *location[2:])
    # The last step of an unknown key is that key, whatever it looks like.
    last = len(location) - (detail["type"] == "extra_forbidden")
    return tuple(
        step for index, step in enumerate(location) if index >= last or not _is_branch(step) or step == _KEY
    )


def _is_branch(step: int | str) -> bool:
    return isinstance(step, str) and step.endswith("]") and "[" in step


def _is_beside(detail: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is about a branch of a union, and another branch came further: that one was meant."""
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
            said = f"{path}.provider: {quoted(context['tag'])}: must be one of {', '.join(_PROVIDERS)}"
        case "at":
            said = f"{path}.{context['path']}: {quoted(context['value'])}: {context['problem']}"
        case "value_error" if isinstance(detail["input"], dict | list):
            said = f"{path}: {context['error']}"
        case "value_error":
            said = f"{path}: {quoted(detail['input'])}: {context['error']}"
        case "string_pattern_mismatch" if location[-1] == _KEY:
            said = f"{path}: {quoted(detail['input'])}: must be a name like `{context['pattern']}`"
        case _:
            said = f"{path}: {quoted(detail['input'])}: must be {_words(field_at(schema, location))}"
    return said


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
