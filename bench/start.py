"""How long a container takes to start on a Calico network, beside Docker's own bridges on the same host.

The reference is the default bridge. A bridge network that somebody made stands beside it: Docker has a
resolver in each of its containers, as in those of every network but the default one. How long that takes is
the engine's matter, so it is measured on two: the one of the lab's hosts, which is their distribution's, and
the engine of today, which is built here and runs on this machine, in namespaces of its own.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from bench import tables
from bench.guests import GuestError, guests
from bench.lifecycle import BenchError
from bench.turns import Series
from components.hosts import remote
from workspace.outputs import PROJECT, Outputs

TURNS = 12
REFERENCE = "bridge"
OWN = "bridge-of-ones-own"
_START = Path(__file__).with_name("start.sh")
_TOOK = re.compile(r"(?P<network>\S+) (?P<microseconds>\d+)")
# The engine is built within minutes, once.
_SECONDS = 900


def measure(outputs: Outputs) -> Series:
    """Start containers on the first host; the guest that is there meanwhile brings the image."""
    host = next(iter(outputs.hosts))
    variables = {"NETWORKS": f"{REFERENCE} {outputs.network}", "OWN": OWN, "TURNS": str(TURNS + 1)}
    with guests(outputs, [host]):
        answer = remote.run(outputs.ssh[host], _START.read_text(), variables, seconds=180)
    if answer.status != 0:
        raise GuestError(f"{host}: containers could not be started: {answer.error}")
    return read(answer.text.splitlines())


def measure_today() -> Series:
    """Start containers on the engine of today, by the benchmark of the driver's conformance suite.

    Raises:
        BenchError: The engine could not be built, or did not run; the message has the last that was said.
    """
    folder = PROJECT / ".toolchain" / "current-engine"
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "DOCKERD": str(folder / "dockerd"),
        # As the toolchain builds: nothing is compiled a second time.
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    }
    _run(["python3", "-m", "workspace", "current-engine"], PROJECT, dict(os.environ))
    # Before all turns Go has one of its own, which does not count.
    bench = ["-run", "^$", "-bench", "^BenchmarkStart$", "-benchtime", f"{TURNS}x"]
    said = _run(
        ["go", "test", "-tags", "engine", "-v", *bench, "./conformance"],
        PROJECT / "docker-driver",
        environment,
    )
    return read(said.splitlines())


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def read(lines: Iterable[str]) -> Series:
    """Read what `start.sh` or the benchmark prints; the first turn, which warms all up, does not count."""
    values: dict[str, list[float]] = {}
    for line in lines:
        if took := _TOOK.fullmatch(line):
            values.setdefault(took["network"], []).append(int(took["microseconds"]) / 1000)
    return Series("docker run", "ms", {network: tuple(times[1:]) for network, times in values.items()})


def table(measured: Series, engine: str) -> Table:
    """Show the figures of an engine."""
    made = tables.table(
        f"Start of a container, {engine} (medians of {TURNS} turns)", "network", measured.unit, "ratio"
    )
    for network in measured.values:
        made.add_row(network, f"{measured.median(network):.0f}", f"{measured.ratio(network, REFERENCE):.3f}")
    return made
