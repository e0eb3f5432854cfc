"""Finds the line of a value in the config file, for messages.

Pulumi gives the program values and no file name, and the file can be another one (`--config-file`). So a line
is returned only when the section in the file equals the section that the program received.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def line_of(file: Path, namespace: str, document: Mapping[str, Any], path: str) -> int | None:
    """Find the line of a value in the config file of a stack.

    Args:
        file: The file; it may be absent.
        namespace: The prefix of the sections in the file.
        document: The sections that the program received.
        path: The path of the value, like `firewall.policies.web.rules[0].ports`.

    Returns:
        The line, from 1, of the value or, when it is missing, of the nearest key above it. None when the
        file has another section or cannot be read.
    """
    section = path.partition(".")[0]
    try:
        text = file.read_text()
        known = (yaml.safe_load(text) or {}).get("config") or {}
    except (OSError, yaml.YAMLError, AttributeError):
        return None
    if section not in document or known.get(f"{namespace}:{section}") != document[section]:
        return None
    node = yaml.compose(text)
    line = None
    for key in ("config", f"{namespace}:{section}", *_steps(path)[1:]):
        found = _child(node, key)
        if found is None:
            break
        line, node = found
    return line


def _steps(path: str) -> list[str]:
    return [name or number for name, number in _STEP.findall(path)]


def _child(node: yaml.Node | None, key: str) -> tuple[int, yaml.Node] | None:
    """Returns the line and the value of a key of a map or of an item of a list."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        item = node.value[int(key)]
        return item.start_mark.line + 1, item
    return None
