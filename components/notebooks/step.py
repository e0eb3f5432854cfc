"""Steps: scripts on the host of a notebook, with the notebook's names as variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.hosts.remote import Answer, HostError, run

SCRIPTS = Path(__file__).with_name("scripts")
"""The component's scripts."""
REMOVE, REMOVE_DATA, KEEP_DATA = (SCRIPTS / f"{name}.sh" for name in ("remove", "remove-data", "keep-data"))
"""What a notebook leaves a host with: its container goes, and its work goes or is kept."""
STEP_SECONDS = 120
"""Time limit of a step. Thirty notebooks may start at once, on two slow processors."""
COPY_SECONDS = 3600
"""Time limit of copying, checking or restoring the work of one notebook."""
NAMES = ("container", "volume", "notebook", "stack", "host")
"""The inputs of both resources of a notebook that every script has as variables."""


def names(props: Mapping[str, Any]) -> dict[str, str]:
    """The variables that every script has."""
    return {name.upper(): props[name] for name in NAMES}


def attempt(
    props: Mapping[str, Any],
    script: Path,
    variables: Mapping[str, str] | None = None,
    seconds: float = STEP_SECONDS,
    *,
    stdin: str = "",
) -> Answer:
    """Run a script on the host of a notebook.

    Args:
        props: The properties of one of its resources.
        script: The script.
        variables: More variables.
        seconds: Time limit, the connection included.
        stdin: The script's standard input; may be secret.
    """
    return run(props["ssh"], script.read_text(), {**names(props), **(variables or {})}, seconds, stdin=stdin)


def step(
    props: Mapping[str, Any],
    script: Path,
    variables: Mapping[str, str] | None = None,
    seconds: float = STEP_SECONDS,
    *,
    stdin: str = "",
) -> str:
    """Run a script that has to succeed, and return what it prints.

    Args:
        props: As for `attempt`, like all others.
        script: The script.
        variables: More variables.
        seconds: Time limit, the connection included.
        stdin: The script's standard input; may be secret.

    Raises:
        HostError: It has failed; the message has the host, the step, the cause and the next step.
    """
    answer = attempt(props, script, variables, seconds, stdin=stdin)
    if answer.status:
        where = f"{props['host']}: {script.stem} of {props['container']} failed"
        raise HostError(f"{where}: {answer.error or answer.text}; then run 'pulumi up' again")
    return answer.text.strip()
