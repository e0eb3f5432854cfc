"""Measures the time of the lab's Pulumi program relative to an empty program, and counts its resources.

The lab is up. `preview` and `up` run without a change, and with a firewall exercise switched on or off. A
stack without resources gives the previews from nothing: of 30 hosts for the time, of the original lab with
and without one more host for the number of resources. A preview changes nothing.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.table import Table

from bench import project, samples, tables
from bench.lifecycle import BenchError
from bench.mode import file_of
from bench.project import Project
from bench.samples import Series
from workspace.outputs import PROJECT

ROUNDS = 5
LARGE_ROUNDS = 3
LARGE_HOSTS = 30
EXERCISE = "reject-ping"
EMPTY = "empty program"
UNCHANGED = "without a change"
SWITCHED = "a firewall exercise switched"
LARGE = f"{LARGE_HOSTS} hosts from nothing"
# The first address of an added host in the hosts' network.
_FIRST = 100


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    preview: Series
    up: Series
    large_preview: Series
    resources: int
    """Of the original lab."""
    resources_with_one_more_host: int

    @property
    def resources_per_host(self) -> int:
        """Of each further host."""
        return self.resources_with_one_more_host - self.resources

    def document(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "preview": self.preview.document(EMPTY),
            "up": self.up.document(EMPTY),
            "exercise beyond an up without a change, s": self.up.difference(SWITCHED, UNCHANGED),
            "preview from nothing": self.large_preview.document(EMPTY),
            "resources": self.resources,
            "resources of a further host": self.resources_per_host,
        }


class Exercise:
    """A firewall exercise of a lab, which is switched on and off alternately."""

    def __init__(self, lab: Project, files: dict[bool, Path], *, enabled: bool) -> None:
        self._lab = lab
        self._files = files
        self.enabled = enabled

    def up(self) -> float:
        """Apply the config that is applied already; return the seconds."""
        return self._project.up()

    def preview(self) -> float:
        """Preview the config that is applied already; return the seconds."""
        return self._project.preview()

    def switch(self) -> float:
        """Switch the exercise on, or off if it is on; return the seconds of `up`."""
        self.enabled = not self.enabled
        return self.up()

    @property
    def _project(self) -> Project:
        return replace(self._lab, config=self._files[self.enabled])


@contextmanager
def exercise(lab: Project, file: Path) -> Iterator[Exercise]:
    """Provide an exercise to switch, and bring the lab back to its own config at the end.

    Args:
        lab: The lab, which is up with this config.
        file: The stack's file.

    Raises:
        BenchError: The config has no such exercise.
    """
    document = yaml.safe_load(file.read_text())
    policies = document["config"].get("calico-lab:firewall", {}).get("policies", {})
    if EXERCISE not in policies:
        raise BenchError(
            f"{file}: the firewall has no policy {EXERCISE}, which the bench switches on and off"
        )
    configured = bool(policies[EXERCISE].get("enabled", True))
    with TemporaryDirectory() as folder:
        files = {}
        for enabled in (True, False):
            policies[EXERCISE]["enabled"] = enabled
            files[enabled] = Path(folder) / f"{'on' if enabled else 'off'}.yaml"
            files[enabled].write_text(yaml.safe_dump(document))
        switched = Exercise(lab, files, enabled=configured)
        try:
            yield switched
        finally:
            if switched.enabled != configured:
                switched.switch()


def with_hosts(config: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the config with more hosts."""
    changed = copy.deepcopy(config)
    section = changed["calico-lab:hosts"]
    network = ip_network(section["network"])
    for number in range(len(section["members"]), count):
        section["members"][f"a{number}"] = {"address": str(network[_FIRST + number])}
    return changed


def measure(name: str) -> Figures:
    """Measure the program of a lab that is up, and leave the lab as it was.

    Raises:
        BenchError: A run failed.
    """
    with project.empty() as empty, exercise(Project(PROJECT, name), file_of(name)) as switched:
        preview = samples.take("preview", "s", ROUNDS, {EMPTY: empty.preview, UNCHANGED: switched.preview})
        up = samples.take(
            "up", "s", ROUNDS, {EMPTY: empty.up, UNCHANGED: switched.up, SWITCHED: switched.switch}
        )
        return Figures(preview, up, large_preview(empty), *resources())


def large_preview(empty: Project) -> Series:
    """Measure the preview of many hosts from nothing."""
    with project.from_nothing(with_hosts(original(), LARGE_HOSTS)) as large:
        return samples.take("preview", "s", LARGE_ROUNDS, {EMPTY: empty.preview, LARGE: large.preview})


def resources() -> tuple[int, int]:
    """Count the resources of the original lab, and with one more host."""
    config = original()
    hosts = len(config["calico-lab:hosts"]["members"])
    with project.from_nothing(config) as lab, project.from_nothing(with_hosts(config, hosts + 1)) as larger:
        return lab.creates(), larger.creates()


def original() -> dict[str, Any]:
    """The config of the original lab."""
    config: dict[str, Any] = yaml.safe_load(file_of("lab").read_text())["config"]
    return config


def tables_of(measured: Figures) -> list[Table]:
    """Show the figures."""
    times = tables.table(
        f"The program (medians of {ROUNDS} rounds, of {LARGE_ROUNDS} from nothing; ratios to: {EMPTY})",
        "what",
        f"{EMPTY}, s",
        "the lab, s",
        "ratio",
    )
    for series, thing in (
        (measured.preview, UNCHANGED),
        (measured.up, UNCHANGED),
        (measured.up, SWITCHED),
        (measured.large_preview, LARGE),
    ):
        times.add_row(
            f"{series.what}, {thing}",
            f"{series.median(EMPTY):.2f}",
            f"{series.median(thing):.2f}",
            f"{series.ratio(thing, EMPTY):.2f}",
        )
    beyond = measured.up.difference(SWITCHED, UNCHANGED)
    times.add_row("the exercise, beyond an up without a change", "", f"{beyond:.2f}", "")
    counts = tables.table("Resources", "of", "number")
    counts.add_row("the original lab", str(measured.resources))
    counts.add_row("each further host", str(measured.resources_per_host))
    return [times, counts]
