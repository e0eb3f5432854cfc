"""The docker plugin's schema and the pulumi_docker SDK name the same resources and properties."""

import json
from pathlib import Path
from typing import Any

import pulumi_docker
import pytest
from pulumi_docker import outputs

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "toolchain/docker-plugin/docker/schema.json").read_text())
OF_PULUMI = {"id", "urn", "pulumi_resource_name", "pulumi_resource_type"}
NESTED = [item for item in SCHEMA["types"].items() if item[0].startswith("docker:index/")]


def properties(cls: type) -> set[str]:
    """The names in the schema of an SDK class' properties."""
    found = {name: value for name, value in vars(cls).items() if isinstance(value, property)}
    return {getattr(value.fget, "_pulumi_name", name) for name, value in found.items()}


@pytest.mark.parametrize(("token", "resource"), SCHEMA["resources"].items())
def test_resource_properties_are_those_of_the_sdk(token: str, resource: dict[str, Any]) -> None:
    cls = getattr(pulumi_docker, token.rpartition(":")[2])
    assert set(resource["properties"]) - OF_PULUMI == properties(cls) - OF_PULUMI


@pytest.mark.parametrize(("token", "kind"), NESTED)
def test_type_properties_are_those_of_the_sdk(token: str, kind: dict[str, Any]) -> None:
    name = token.rpartition(":")[2]
    # The result type of a function has no class for arguments.
    result = f"{name[0].upper()}{name[1:]}Result"
    cls = getattr(pulumi_docker, f"{name}Args", None) or getattr(outputs, result)
    assert set(kind["properties"]) == properties(cls)


def test_resources_are_those_of_the_sdk_without_image() -> None:
    names = {token.rpartition(":")[2] for token in SCHEMA["resources"]}
    sdk = {
        name
        for name, value in vars(pulumi_docker).items()
        if isinstance(value, type) and issubclass(value, pulumi_docker.Container.__mro__[1])
    }
    assert sdk - names == {"Image", "Provider"}
    assert not names - sdk
