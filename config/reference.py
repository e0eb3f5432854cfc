"""Writes docs/config.md from the config's models: `python -m config.reference`.

The models are the documentation, so the table cannot say anything else than what is accepted; a test compares
the file with what this module renders.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from config.accepted import Schema, accepted, values
from config.model import NAMESPACE, LabConfig

FILE = Path(__file__).resolve().parents[1] / "docs" / "config.md"
INTRODUCTION = f"""\
# The lab's config

`Pulumi.<stack>.yaml` describes a lab, and `Pulumi.lab.yaml` the original one. This file is generated from the
models in `config/` and `components/` by `make docs`. What is not in these tables is refused, together with
everything else that is wrong, before anything is touched: the message has the path, the value, and what would
be accepted.

A section is a key of its own in the file, `{NAMESPACE}:<section>`; a value can also be set by its path:

    pulumi config set --path '{NAMESPACE}:proxy.port' 8080
"""


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
    if found := values(field):
        yield from _references(f"{path}.<name>", found)


def _table(path: str, model: Schema) -> str:
    lines = [f"`{path}`: {_description(model)}\n", "| key | accepts | default | |", "|---|---|---|---|"]
    for key, field in model.get("properties", {}).items():
        accepts = accepted(field)
        default = "required" if key in model.get("required", []) else _default(field)
        lines.append(f"| `{key}` | {_cell(accepts)} | {_cell(default)} | {_cell(_description(field))} |")
    return "\n".join([*lines, ""])


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
