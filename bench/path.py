"""Throughput and latency of the paths that a container's packets take, beside the limit of such a path.

The limit is a veth pair and a route on hosts without any rule (`bench.bare`). Where such hosts cannot be
made, the same pair on the lab's hosts is the reference. Between the limit and the lab lies what a packet
meets on each of the two hosts: the tracking of its connection, which the path `bare, tracked` shows alone;
the tables that every packet of a host meets, which the pair on the lab's hosts shows; and what Calico has
for the container.

All programs are the hosts' own iperf3 and ping, whichever namespace they run in.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

from rich.table import Table

from bench import bare, tables, turns
from bench.bare import Shell
from bench.guests import Guest, guests
from bench.mode import Mode
from bench.turns import Series
from workspace.outputs import Outputs

TURNS = 5
SECONDS = 3
PINGS = 400
PORT = 5201

HOST = "host to host"
LIMIT = "bare"
TRACKED = "bare, tracked"
TABLES = "bare, on the lab's hosts"
BRIDGE = "Docker's bridge, one host"


@dataclass(frozen=True)
class Path:
    """Two ends, and the address of the second."""

    client: Shell
    server: Shell
    address: str


@dataclass(frozen=True)
class Paths:
    """All paths that were there at the same time, in the same turns."""

    reference: str
    throughput: Series
    latency: Series

    def document(self) -> dict[str, Any]:
        """The figures for machines."""
        return {
            "throughput": self.throughput.document(self.reference),
            "latency": self.latency.document(self.reference),
        }


def between(client: Guest, server: Guest) -> Path:
    """The path between two containers."""
    return Path(client.run, server.run, server.address)


def throughput(path: Path) -> float:
    """Gbit/s of one TCP connection."""
    path.server(f"iperf3 --server --one-off --daemon --bind {path.address} --port {PORT}")
    path.server(
        f"for _ in $(seq 50); do ss -Hltn sport = :{PORT} | grep -q . && exit; sleep 0.1; done; exit 1"
    )
    told = json.loads(path.client(f"iperf3 --client {path.address} --port {PORT} --time {SECONDS} --json"))
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def latency(path: Path) -> float:
    """Microseconds there and back: the mean of the middle half of many pings.

    The slowest tell of what else the machine did, and the quickest of ping's own rounding.
    """
    told = path.client(f"ping -n -c {PINGS} -i 0.002 {path.address}")
    times = sorted(float(one) for one in re.findall(r"time=([\d.]+) ms", told))
    if len(times) < PINGS / 2:
        raise ValueError(f"ping to {path.address} told of {len(times)} answers to {PINGS}: {told[-500:]}")
    quarter = len(times) // 4
    return mean(times[quarter : len(times) - quarter]) * 1000


def measure(outputs: Outputs, mode: Mode, *, all_paths: bool = True) -> Paths:
    """Measure between the first two hosts.

    Args:
        outputs: The lab.
        mode: What the lab's network is in, to name its path by.
        all_paths: Also those to which the mode is nothing: the bridge, and what the limit is made of.
    """
    with _paths(outputs, mode, all_paths=all_paths) as paths:
        for path in paths.values():
            # A path's first packets also find it: neighbours, routes, tracking.
            path.client(f"ping -n -q -c 5 -i 0.2 {path.address}")
        return Paths(
            reference=LIMIT if LIMIT in paths else TABLES,
            throughput=turns.take("throughput", "Gbit/s", TURNS, _each(throughput, paths)),
            latency=turns.take("round trip", "µs", TURNS, _each(latency, paths)),
        )


def _each(what: Callable[[Path], float], paths: Mapping[str, Path]) -> dict[str, Callable[[], float]]:
    return {name: partial(what, path) for name, path in paths.items()}


@contextmanager
def _paths(outputs: Outputs, mode: Mode, *, all_paths: bool) -> Iterator[dict[str, Path]]:
    here, there = list(outputs.hosts)[:2]
    with ExitStack() as stack:
        found: dict[str, Path] = {}
        if bare.possible():
            client, server = stack.enter_context(bare.hosts("limit", here))
            found[LIMIT] = Path(client, server, bare.GUESTS[1])
        if bare.possible() and all_paths:
            client, server = stack.enter_context(bare.hosts("tracked", here, tracked=True))
            found[TRACKED] = Path(client, server, bare.GUESTS[1])
        client, server = stack.enter_context(bare.on_lab_hosts(outputs, here, there))
        found[TABLES] = Path(client, server, bare.GUESTS[1])
        client, server = partial(bare.on_host, outputs.ssh[here]), partial(bare.on_host, outputs.ssh[there])
        found[HOST] = Path(client, server, outputs.hosts[there])
        on_network = stack.enter_context(guests(outputs, [here, there]))
        found[network_path(mode)] = between(on_network[here], on_network[there])
        if all_paths:
            one, other = (
                stack.enter_context(guests(outputs, [here], name=f"bridge-{end}", network="bridge"))[here]
                for end in (1, 2)
            )
            found[BRIDGE] = between(one, other)
        yield found


def network_path(mode: Mode) -> str:
    """What the lab's own path is called."""
    return f"Calico, {mode}"


def table(measured: Paths) -> Table:
    """Show the figures; the best throughput and the shortest time are those of the reference, mostly."""
    made = tables.table(
        f"Paths (medians of {TURNS} turns; ratios to: {measured.reference})",
        "path",
        measured.throughput.unit,
        "ratio",
        measured.latency.unit,
        "ratio",
    )
    for path in measured.throughput.values:
        made.add_row(
            path,
            f"{measured.throughput.median(path):.2f}",
            f"{measured.throughput.ratio(path, measured.reference):.3f}",
            f"{measured.latency.median(path):.1f}",
            f"{measured.latency.ratio(path, measured.reference):.3f}",
        )
    return made
