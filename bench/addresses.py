"""Measures addresses assigned per second, by the driver of one host and by the drivers of all hosts at once.

The requests go to the drivers' sockets, as Docker's do, so that the rest of a container's start is not
measured. For each address a quorum of etcd writes to disk.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from bench import samples, tables
from bench.guests import GuestError
from bench.samples import Series
from components.hosts import remote
from workspace.outputs import Outputs

ROUNDS = 3
CONNECTIONS = 4
EACH = 15
_ASK = Path(__file__).with_name("addresses.sh")
ALONE = "one host"


def measure(outputs: Outputs) -> Series:
    """Request addresses, and release them."""
    hosts = list(outputs.hosts)
    return samples.take(
        "addresses",
        "1/s",
        ROUNDS,
        {
            ALONE: lambda: _rate(outputs, hosts[:1]),
            f"{len(hosts)} hosts at once": lambda: _rate(outputs, hosts),
        },
    )


def _rate(outputs: Outputs, hosts: list[str]) -> float:
    variables = {"POOL": outputs.cidr, "EACH": str(EACH), "CONNECTIONS": str(CONNECTIONS)}
    answers = remote.ask(
        {host: outputs.ssh[host] for host in hosts},
        _ASK.read_text(),
        dict.fromkeys(hosts, variables),
        seconds=90,
    )
    for host, answer in answers.items():
        if answer.status != 0:
            raise GuestError(f"{host}: the driver assigns no addresses: {answer.error}; next: lab doctor")
    return rate(line for answer in answers.values() for line in answer.text.splitlines())


def rate(lines: Iterable[str]) -> float:
    """Addresses per second of all workers, from their common start to the end of the last."""
    counts, microseconds = zip(*(map(int, line.split(" ")) for line in lines), strict=True)
    return float(sum(counts) / (max(microseconds) / 1e6))


def table(measured: Series) -> Table:
    """Show the figures."""
    made = tables.table(
        f"Addresses assigned (medians of {ROUNDS} rounds)", "by the drivers of", measured.unit, "ratio"
    )
    for hosts in measured.samples:
        made.add_row(hosts, f"{measured.median(hosts):.0f}", f"{measured.ratio(hosts, ALONE):.2f}")
    return made
