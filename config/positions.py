"""Where in the config's file a value stands, so that a message about it can give the line.

Pulumi gives the program the values and not the file, and the file may be another than the stack's own
(`--config-file`). So a line is given only where the file has the same section as the program was given.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def line_of(file: Path, namespace: str, document: Mapping[str, Any], path: str) -> int | None:
    """Find the line of a value in a stack's config file.

    Args:
        file: The file; it need not be there.
        namespace: What stands in front of a section's name in the file.
        document: The sections as the program was given them.
        path: The value's place, like `firewall.policies.web.rules[0].ports`.

    Returns:
        The line, from 1, of the value or of what it would stand in; None where the file does not have it.
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
    """The line of a key, or of an item of a list, and what it holds."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        item = node.value[int(key)]
        return item.start_mark.line + 1, item
    return None
