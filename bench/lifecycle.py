"""Runs `pulumi up` and `destroy`, and measures how long they and their parts take.

The parts come from the engine's events, which Pulumi streams with `--json`. Events are timed when they
arrive, because their own timestamps have whole seconds only.
"""

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diagnosis import web
from workspace import outputs as stack
from workspace.outputs import PROJECT

COMPONENT = "calico-lab:index:"
UP_SECONDS = 900


@dataclass(frozen=True)
class Step:
    """An operation on one resource; times are in seconds from the start of the run."""

    component: str
    resource: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


@dataclass(frozen=True)
class Run:
    """One run of a Pulumi verb."""

    seconds: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Part:
    """The time of one component, from its first resource to its last."""

    component: str
    start: float
    end: float
    slowest: Step


class BenchError(Exception):
    """A measurement failed; the message has the end of the failed command's output."""


def run(verb: str, name: str, config: Path | None = None) -> Run:
    """Run `up` or `destroy` and time its steps.

    Args:
        verb: `up` or `destroy`.
        name: The stack.
        config: A file that is used instead of the stack's own.

    Raises:
        BenchError: It failed.
    """
    command = ["pulumi", verb, "--yes", "--skip-preview", "--non-interactive", "--json", "--stack", name]
    if config:
        command += ["--config-file", str(config)]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        lines: list[tuple[float, str]] = []
        for line in process.stdout or ():
            # Other lines are not from the engine.
            if line.startswith("{"):
                lines.append((time.monotonic() - started, line))
        process.wait(timeout=UP_SECONDS)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        output = "".join(_messages(line for _, line in lines))
        raise BenchError(f"pulumi {verb} --stack {name} failed:\n{output}")
    return Run(seconds, tuple(steps(lines)))


def steps(lines: Iterable[tuple[float, str]]) -> Iterator[Step]:
    """Pair the events of the start and the end of each resource's operation."""
    started_at: dict[str, float] = {}
    for at, line in lines:
        event = json.loads(line)
        if metadata := _metadata(event, "resourcePreEvent"):
            started_at[metadata["urn"]] = at
        elif (metadata := _metadata(event, "resOutputsEvent")) and metadata["urn"] in started_at:
            urn = metadata["urn"]
            component, resource = _names(urn)
            yield Step(component, resource, started_at.pop(urn), at)


def parts(steps: Iterable[Step]) -> list[Part]:
    """Group steps by component, in the order in which they start."""
    by_component: dict[str, list[Step]] = {}
    for step in steps:
        by_component.setdefault(step.component, []).append(step)
    found = [
        Part(
            component,
            min(step.start for step in group),
            max(step.end for step in group),
            max(group, key=lambda step: step.seconds),
        )
        for component, group in by_component.items()
    ]
    return sorted(found, key=lambda part: part.start)


def until_notebook_answers(name: str, seconds: float = 60) -> float:
    """Wait until the notebook answers through the proxy; return the seconds.

    Raises:
        BenchError: It does not answer in time.
    """
    outputs = stack.read(name)
    url = outputs.notebook_api
    started = time.monotonic()
    while (answer := web.get(url, outputs.proxy_authority)).status != 200:
        if time.monotonic() - started > seconds:
            raise BenchError(f"{url} does not answer after {seconds:g} s: {answer}; next: lab status")
        time.sleep(0.1)
    return time.monotonic() - started


def _metadata(event: dict[str, dict[str, dict[str, str]]], kind: str) -> dict[str, str] | None:
    """The metadata of an operation; None for stacks and components, which only contain resources."""
    metadata = event.get(kind, {}).get("metadata")
    if not metadata or metadata["op"] == "same":
        return None
    return None if metadata["type"].startswith((COMPONENT, "pulumi:pulumi:Stack")) else metadata


def _names(urn: str) -> tuple[str, str]:
    """The component and the name of a resource; its URN has the types of its parents before its own."""
    *_, types, name = urn.split("::")
    component = next((one for one in types.split("$") if one.startswith(COMPONENT)), "")
    return component.removeprefix(COMPONENT) or "program", name


def _messages(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        diagnostic = json.loads(line).get("diagnosticEvent", {})
        if diagnostic.get("severity") in ("error", "info#err"):
            yield diagnostic["message"]
