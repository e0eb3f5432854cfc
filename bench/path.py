"""Measures throughput and latency of the paths of a container's packets, with the limit of such a path.

The limit is a veth pair and a route on hosts without any rule (`bench.bare`). Where such hosts cannot be
created, the same pair on the lab's hosts is the reference. The differences are: connection tracking, which
the path `bare, tracked` has; the tables of a host for every packet, which the pair on the lab's hosts has;
Calico's rules for the container.

iperf3 and ping are the hosts' own programs in every namespace.
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

from bench import bare, samples, tables
from bench.bare import Shell
from bench.guests import Guest, guests
from bench.mode import Mode
from bench.samples import Series
from workspace.outputs import Outputs

ROUNDS = 5
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
    """Shells at both ends, and the address of the server."""

    client: Shell
    server: Shell
    address: str


@dataclass(frozen=True)
class Paths:
    """The figures of all paths, from the same rounds."""

    reference: str
    throughput: Series
    latency: Series

    def document(self) -> dict[str, Any]:
        """The figures as JSON."""
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
    output = json.loads(path.client(f"iperf3 --client {path.address} --port {PORT} --time {SECONDS} --json"))
    return float(output["end"]["sum_received"]["bits_per_second"]) / 1e9


def latency(path: Path) -> float:
    """Round trip in microseconds: the mean of the middle half of many pings.

    The slowest show other load of the computer, and the fastest ping's rounding.
    """
    output = path.client(f"ping -n -c {PINGS} -i 0.002 {path.address}")
    times = sorted(float(one) for one in re.findall(r"time=([\d.]+) ms", output))
    if len(times) < PINGS / 2:
        raise ValueError(f"ping to {path.address}: {len(times)} of {PINGS} were answered: {output[-500:]}")
    quarter = len(times) // 4
    return mean(times[quarter : len(times) - quarter]) * 1000


def measure(outputs: Outputs, mode: Mode, *, all_paths: bool = True) -> Paths:
    """Measure between the first two hosts.

    Args:
        outputs: The lab.
        mode: The mode of the lab's network, which names its path.
        all_paths: Also measure the paths that do not depend on the mode.
    """
    with _paths(outputs, mode, all_paths=all_paths) as paths:
        for path in paths.values():
            # The first packets take longer: ARP, routes, connection tracking.
            path.client(f"ping -n -q -c 5 -i 0.2 {path.address}")
        return Paths(
            reference=LIMIT if LIMIT in paths else TABLES,
            throughput=samples.take("throughput", "Gbit/s", ROUNDS, _each(throughput, paths)),
            latency=samples.take("round trip", "µs", ROUNDS, _each(latency, paths)),
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
    """The name of the lab's own path."""
    return f"Calico, {mode}"


def table(measured: Paths) -> Table:
    """Show the figures."""
    made = tables.table(
        f"Paths (medians of {ROUNDS} rounds; ratios to: {measured.reference})",
        "path",
        measured.throughput.unit,
        "ratio",
        measured.latency.unit,
        "ratio",
    )
    for path in measured.throughput.samples:
        made.add_row(
            path,
            f"{measured.throughput.median(path):.2f}",
            f"{measured.throughput.ratio(path, measured.reference):.3f}",
            f"{measured.latency.median(path):.1f}",
            f"{measured.latency.ratio(path, measured.reference):.3f}",
        )
    return made
