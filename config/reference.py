"""Generates docs/config.md and config/schema.json from the models: `python -m config.reference`.

A test compares both files with what this module renders, so they always agree with what is accepted.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from config.accepted import Schema, accepted, values
from config.model import NAMESPACE, LabConfig

ROOT = Path(__file__).resolve().parents[1]
INTRODUCTION = f"""\
# The lab's config

`Pulumi.<stack>.yaml` describes a lab; `Pulumi.lab.yaml` describes the original one. `make docs` generates
this file from the models in `config/` and `components/`, and `config/schema.json` for editors that use
yaml-language-server. Keys that are not in these tables are refused. All problems of a file are reported
together, before anything is changed: each with its path, its value, and what is accepted.

Each section is a key of its own in the file, `{NAMESPACE}:<section>`. A value can be set by its path:

    pulumi config set --path '{NAMESPACE}:proxy.port' 8080
"""


def render() -> str:
    """Returns the text of docs/config.md."""
    schema = LabConfig.model_json_schema(by_alias=True)
    definitions: Mapping[str, Schema] = schema["$defs"]
    required = schema.get("required", [])
    texts = [INTRODUCTION]
    for section, field in schema["properties"].items():
        optional = "" if section in required else " This section is optional."
        texts.append(f"## `{NAMESPACE}:{section}`\n\n{_description(field)}{optional}\n")
        for path, model in _models(section, field, definitions):
            texts.append(_table(path, model))
    return "\n".join(texts)


def render_schema() -> str:
    """Returns the JSON Schema of a stack's file, for editors.

    It is draft 07, because every version of yaml-language-server reads that. Checks across sections are
    not in it.
    """
    model = LabConfig.model_json_schema(by_alias=True, schema_generator=_InputSchema)
    document = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Pulumi.<stack>.yaml of Calico Lab",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "required": [f"{NAMESPACE}:{section}" for section in model["required"]],
                "properties": {f"{NAMESPACE}:{key}": field for key, field in model["properties"].items()},
                # Settings of Pulumi's own plugins, such as docker:host.
                "patternProperties": {f"^(?!{NAMESPACE}:)": {}},
                "additionalProperties": False,
            }
        },
        "$defs": model["$defs"],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


FILES = {ROOT / "docs" / "config.md": render, ROOT / "config" / "schema.json": render_schema}
"""The generated files, and what renders each."""


class _InputSchema(GenerateJsonSchema):
    """Adds the short spellings that validators accept: an item for a list of one, a number for a port."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Returns the schema of a field whose validator runs before the check of its type."""
        described = super().function_before_schema(schema)
        match described:
            case {"type": "array", "items": item}:
                return {"anyOf": [described, item]}
            case {"type": "string", **other} if not other:
                return {"type": ["string", "integer"]}
        return described


def _models(path: str, field: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """Yields the models under a field, each with its path; the model of the field itself comes first."""
    for model_path, name in _references(path, field):
        model = definitions[name]
        yield model_path, model
        for key, child in model.get("properties", {}).items():
            yield from _models(f"{model_path}.{key}", child, definitions)


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
    # YAML ends a document that is a plain value with the line '...'.
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _description(field: Schema) -> str:
    return " ".join(str(field.get("description", "")).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def main() -> None:
    """Write the files."""
    for file, renders in FILES.items():
        file.write_text(renders())


if __name__ == "__main__":
    main()
