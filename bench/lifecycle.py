"""How long the lab takes to come up, to find that nothing changes, and to go; and which part takes how long.

The parts come from the engine's events, which Pulumi streams with `--json`. An event's own time has whole
seconds only, so each is timed when it arrives.
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
    """What was done to one resource, and when, in seconds from the start of the run."""

    component: str
    resource: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


@dataclass(frozen=True)
class Run:
    """One run of a Pulumi verb."""

    seconds: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Part:
    """What one component took, from its first resource to its last."""

    component: str
    begin: float
    end: float
    slowest: Step


class BenchError(Exception):
    """A run failed; the message has the last that it said."""


def run(verb: str, name: str, config: Path | None = None) -> Run:
    """Run `up` or `destroy` and time its steps.

    Args:
        verb: Which.
        name: The stack.
        config: A file that stands for the stack's own.

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
            # What is not of the engine itself is no event.
            if line.startswith("{"):
                lines.append((time.monotonic() - started, line))
        process.wait(timeout=UP_SECONDS)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        said = "".join(_messages(line for _, line in lines))
        raise BenchError(f"pulumi {verb} --stack {name} failed:\n{said}")
    return Run(seconds, tuple(steps(lines)))


def steps(lines: Iterable[tuple[float, str]]) -> Iterator[Step]:
    """Pair the events that begin and end the work on each resource."""
    begun: dict[str, float] = {}
    for at, line in lines:
        event = json.loads(line)
        if metadata := _metadata(event, "resourcePreEvent"):
            begun[metadata["urn"]] = at
        elif (metadata := _metadata(event, "resOutputsEvent")) and metadata["urn"] in begun:
            urn = metadata["urn"]
            component, resource = _names(urn)
            yield Step(component, resource, begun.pop(urn), at)


def parts(steps: Iterable[Step]) -> list[Part]:
    """Sum steps up by component, in the order in which they begin."""
    by_component: dict[str, list[Step]] = {}
    for step in steps:
        by_component.setdefault(step.component, []).append(step)
    found = [
        Part(
            component,
            min(step.begin for step in group),
            max(step.end for step in group),
            max(group, key=lambda step: step.seconds),
        )
        for component, group in by_component.items()
    ]
    return sorted(found, key=lambda part: part.begin)


def until_notebook_answers(name: str, seconds: float = 60) -> float:
    """Wait for the notebook behind the proxy; return how long that took.

    Raises:
        BenchError: It does not answer in time.
    """
    url = stack.read(name).notebook_api
    started = time.monotonic()
    while (answer := web.get(url)).status != 200:
        if time.monotonic() - started > seconds:
            raise BenchError(f"{url} does not answer after {seconds:g} s: {answer}; next: lab status")
        time.sleep(0.1)
    return time.monotonic() - started


def _metadata(event: dict[str, dict[str, dict[str, str]]], kind: str) -> dict[str, str] | None:
    """What an event is about, if it is work: the stack and the components only hold what is worked on."""
    metadata = event.get(kind, {}).get("metadata")
    if not metadata or metadata["op"] == "same":
        return None
    return None if metadata["type"].startswith((COMPONENT, "pulumi:pulumi:Stack")) else metadata


def _names(urn: str) -> tuple[str, str]:
    """The component and the name of a resource: its URN has the types of its parents in front of its own."""
    *_, types, name = urn.split("::")
    component = next((one for one in types.split("$") if one.startswith(COMPONENT)), "")
    return component.removeprefix(COMPONENT) or "program", name


def _messages(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        diagnostic = json.loads(line).get("diagnosticEvent", {})
        if diagnostic.get("severity") in ("error", "info#err"):
            yield diagnostic["message"]
