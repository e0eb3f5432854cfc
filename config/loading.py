"""Reads the config of a stack into the model, and reports every problem of it at once.

A problem is one line: the path in the file, the value, and what is accepted.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.messages import MESSAGE, sentences, shortened
from config.model import NAMESPACE, LabConfig
from config.positions import line_of
from config.validation import problems_of


class ConfigError(Exception):
    """The config file is wrong; the message has a line for each problem."""

    def __init__(self, file: str, problems: list[str]) -> None:
        super().__init__(
            "\n".join([f"{file} has {len(problems)} problem(s):", *(f"  {p}" for p in problems)])
        )


def load(values: Mapping[str, Any], file: str) -> LabConfig:
    """Read the config of a stack.

    Args:
        values: The program's config as the engine gives it: `<namespace>:<section>` to JSON text.
        file: The name of the file, for messages.

    Raises:
        ConfigError: With every problem of the file.
    """
    prefix = f"{NAMESPACE}:"
    document = {
        key.removeprefix(prefix): _parse(value) for key, value in values.items() if key.startswith(prefix)
    }
    try:
        config = LabConfig.model_validate(document)
    except ValidationError as error:
        problems = sentences(error, LabConfig)
    else:
        problems = problems_of(config)
        if not problems:
            return config
    raise ConfigError(file, [_with_line(problem, file, document) for problem in problems])


def _with_line(problem: str, file: str, document: Mapping[str, Any]) -> str:
    line = line_of(Path(file), NAMESPACE, document, problem.partition(": ")[0])
    short = shortened(problem, MESSAGE)
    return f"line {line}: {short}" if line else short


def _parse(value: Any) -> Any:  # noqa: ANN401 - any value that a file can hold
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
