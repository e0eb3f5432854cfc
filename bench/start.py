"""How long a container takes to start on the lab's network, beside Docker's own bridges on the same host.

The reference is the default bridge. A bridge network that somebody made stands beside it: Docker has a
resolver in each of its containers, as in those of every network but the default one.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from bench import tables
from bench.guests import GuestError, guests
from bench.turns import Series
from lab import remote
from lab.stack import Outputs

TURNS = 12
REFERENCE = "bridge"
OWN = "bridge-of-ones-own"
_START = Path(__file__).with_name("start.sh")


def measure(outputs: Outputs) -> Series:
    """Start containers on the first host; the guest that is there meanwhile brings the image."""
    host = next(iter(outputs.hosts))
    variables = {"NETWORKS": f"{REFERENCE} {outputs.network}", "OWN": OWN, "TURNS": str(TURNS + 1)}
    with guests(outputs, [host]):
        answer = remote.run(outputs.ssh[host], _START.read_text(), variables, seconds=180)
    if answer.status != 0:
        raise GuestError(f"{host}: containers could not be started: {answer.error}")
    return read(answer.text.splitlines())


def read(lines: Iterable[str]) -> Series:
    """Read what `start.sh` prints; the first turn, which warms everything up, does not count."""
    values: dict[str, list[float]] = {}
    for line in lines:
        network, microseconds = line.split(" ")
        values.setdefault(network, []).append(int(microseconds) / 1000)
    return Series("docker run", "ms", {network: tuple(times[1:]) for network, times in values.items()})


def table(measured: Series) -> Table:
    """Show the figures."""
    made = tables.table(f"Start of a container (medians of {TURNS} turns)", "network", measured.unit, "ratio")
    for network in measured.values:
        made.add_row(network, f"{measured.median(network):.0f}", f"{measured.ratio(network, REFERENCE):.3f}")
    return made
