"""The config's documentation is what the models say."""

from collections.abc import Iterator
from typing import Any

from config import reference
from config.model import LabConfig


def test_the_file_is_current() -> None:
    assert reference.FILE.read_text() == reference.render(), "run 'make docs'"


def test_every_key_has_a_description() -> None:
    schema = LabConfig.model_json_schema(by_alias=True)
    assert [path for path, text in _described(schema) if not text] == []


def _described(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, model in [("", schema), *schema["$defs"].items()]:
        for key, field in model.get("properties", {}).items():
            yield f"{name}.{key}", field.get("description", "")
