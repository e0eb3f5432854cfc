"""Measures the start of a container on a Calico network, relative to Docker's bridges on the same host.

The reference is the default bridge. A user-defined bridge is measured too, because on every network but the
default one Docker starts a resolver in each container. Its cost depends on the engine, so two are measured:
that of the lab's hosts, which is their distribution's, and the current one, which is built here and runs on
the controller in namespaces of its own.
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
from bench.samples import Series
from components.hosts import remote
from workspace.outputs import PROJECT, Outputs

ROUNDS = 12
REFERENCE = "bridge"
OWN = "user-defined-bridge"
_START = Path(__file__).with_name("start.sh")
_LINE = re.compile(r"(?P<network>\S+) (?P<microseconds>\d+)")
# The first time the engine is built, which takes minutes.
_SECONDS = 900


def measure(outputs: Outputs) -> Series:
    """Start containers on the first host; a guest provides their image."""
    host = next(iter(outputs.hosts))
    variables = {"NETWORKS": f"{REFERENCE} {outputs.network}", "OWN": OWN, "ROUNDS": str(ROUNDS + 1)}
    with guests(outputs, [host]):
        answer = remote.run(outputs.ssh[host], _START.read_text(), variables, seconds=180)
    if answer.status != 0:
        raise GuestError(f"{host}: containers could not be started: {answer.error}")
    return read(answer.text.splitlines())


def measure_current_engine() -> Series:
    """Start containers on the current engine, with the benchmark of the driver's conformance suite.

    Raises:
        BenchError: The engine could not be built, or did not run.
    """
    folder = PROJECT / ".toolchain" / "current-engine"
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "DOCKERD": str(folder / "dockerd"),
        # The toolchain's flags, so that Go's cache has the compiled packages.
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    }
    _run(["python3", "-m", "workspace", "current-engine"], PROJECT, dict(os.environ))
    # Go runs the benchmark once before its rounds; `read` drops that sample.
    bench = ["-run", "^$", "-bench", "^BenchmarkStart$", "-benchtime", f"{ROUNDS}x"]
    output = _run(
        ["go", "test", "-tags", "engine", "-v", *bench, "./conformance"],
        PROJECT / "docker-driver",
        environment,
    )
    return read(output.splitlines())


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def read(lines: Iterable[str]) -> Series:
    """Read the output of `start.sh` or of the benchmark; the first round, a warm-up, is dropped."""
    values: dict[str, list[float]] = {}
    for line in lines:
        if match := _LINE.fullmatch(line):
            values.setdefault(match["network"], []).append(int(match["microseconds"]) / 1000)
    return Series("docker run", "ms", {network: tuple(times[1:]) for network, times in values.items()})


def table(measured: Series, engine: str) -> Table:
    """Show the figures of an engine."""
    made = tables.table(
        f"Start of a container, {engine} (medians of {ROUNDS} rounds)", "network", measured.unit, "ratio"
    )
    for network in measured.samples:
        made.add_row(network, f"{measured.median(network):.0f}", f"{measured.ratio(network, REFERENCE):.3f}")
    return made
