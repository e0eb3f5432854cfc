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
    """The wire names of what an SDK class has."""
    found = {name: value for name, value in vars(cls).items() if isinstance(value, property)}
    return {getattr(value.fget, "_pulumi_name", name) for name, value in found.items()}


@pytest.mark.parametrize(("token", "resource"), SCHEMA["resources"].items())
def test_a_resource_has_the_properties_of_the_sdk(token: str, resource: dict[str, Any]) -> None:
    cls = getattr(pulumi_docker, token.rpartition(":")[2])
    assert set(resource["properties"]) - OF_PULUMI == properties(cls) - OF_PULUMI


@pytest.mark.parametrize(("token", "kind"), NESTED)
def test_a_nested_type_has_the_properties_of_the_sdk(token: str, kind: dict[str, Any]) -> None:
    name = token.rpartition(":")[2]
    # What only a function returns is an output and has no arguments' class.
    result = f"{name[0].upper()}{name[1:]}Result"
    cls = getattr(pulumi_docker, f"{name}Args", None) or getattr(outputs, result)
    assert set(kind["properties"]) == properties(cls)


def test_every_resource_of_the_sdk_is_there_but_the_one_that_upstream_lacks() -> None:
    names = {token.rpartition(":")[2] for token in SCHEMA["resources"]}
    sdk = {
        name
        for name, value in vars(pulumi_docker).items()
        if isinstance(value, type) and issubclass(value, pulumi_docker.Container.__mro__[1])
    }
    assert sdk - names == {"Image", "Provider"}
    assert not names - sdk
