"""The reference and the JSON Schema of the config are generated from the models."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from config import reference
from config.model import LabConfig

SCHEMA = Draft7Validator(json.loads(reference.render_schema()))
STACKS = sorted(reference.ROOT.glob("Pulumi.*.yaml"))


@pytest.mark.parametrize("file", reference.FILES, ids=lambda file: file.name)
def test_reference_is_current(file: Path) -> None:
    render: Callable[[], str] = reference.FILES[file]
    assert file.read_text() == render(), "run 'make docs'"


def test_reference_describes_every_key() -> None:
    schema = LabConfig.model_json_schema(by_alias=True)
    assert [path for path, text in _described(schema) if not text] == []


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.name)
def test_schema_accepts_stack_file(file: Path) -> None:
    assert _errors(yaml.safe_load(file.read_text())) == []


@pytest.mark.parametrize(
    ("path", "value", "accepted"),
    [
        ("etcd.memberz", ["a0"], False),
        ("etcd.members", "a0", False),
        ("proxy.port", 88888, False),
        ("hosts.provider", "vagrant", False),
        ("network.policies.web.ingress", [{"action": "allow", "protocol": "tcp", "ports": "80-90"}], True),
        ("firewall.sets.blocked", {"file": "blocked.txt"}, True),
        ("firewall.sets.blocked", {"path": "blocked.txt"}, False),
        ("firewall.policies.only-http.rules", [{"action": "accept", "state": "new", "ports": 80}], True),
    ],
)
def test_schema_value(path: str, value: object, accepted: bool) -> None:
    document = yaml.safe_load((reference.ROOT / "Pulumi.lab.yaml").read_text())
    *parents, last = path.split(".")
    section = document["config"]
    for parent in [f"calico-lab:{parents[0]}", *parents[1:]]:
        section = section.setdefault(parent, {"appliesTo": "notebook"})
    section[last] = value
    assert (_errors(document) == []) is accepted


def test_schema_unknown_section_of_the_lab() -> None:
    document = yaml.safe_load((reference.ROOT / "Pulumi.lab.yaml").read_text())
    document["config"] |= {"docker:host": "unix:///run/docker.sock"}
    assert _errors(document) == []
    document["config"] |= {"calico-lab:netwrok": {}}
    assert len(_errors(document)) == 1


def _errors(document: object) -> list[str]:
    return [error.message for error in SCHEMA.iter_errors(document)]


def _described(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, model in [("", schema), *schema["$defs"].items()]:
        for key, field in model.get("properties", {}).items():
            yield f"{name}.{key}", field.get("description", "")
