"""Reads a stack's config file as the program does."""

from pathlib import Path

import yaml

from config.loading import load
from config.model import LabConfig
from workspace.outputs import PROJECT, StackError


def read_config(stack: str, folder: Path = PROJECT) -> LabConfig:
    """Read the config of a stack.

    Raises:
        StackError: The file is missing, or is not YAML.
        ConfigError: The config is invalid.
    """
    path = folder / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise StackError(f"{path.name} is not in {folder}; next: pulumi stack ls") from None
    except yaml.YAMLError as error:
        raise StackError(f"{path.name} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise StackError(f"{path.name} holds no keys; next: see docs/config.md")
    return load(document.get("config") or {}, path.name)
