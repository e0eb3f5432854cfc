"""Addresses assigned per second: by the driver of one host alone, and by the drivers of all hosts at once.

The drivers are asked by their own sockets, as Docker asks them: what else the start of a container takes is
left out. Every address comes from etcd, where a quorum has written it down.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from bench import tables, turns
from bench.guests import GuestError
from bench.turns import Series
from components.hosts import remote
from workspace.outputs import Outputs

TURNS = 3
CONNECTIONS = 4
EACH = 15
_ASK = Path(__file__).with_name("addresses.sh")
ALONE = "one host"


def measure(outputs: Outputs) -> Series:
    """Have addresses assigned, and given back."""
    hosts = list(outputs.hosts)
    return turns.take(
        "addresses",
        "1/s",
        TURNS,
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
            raise GuestError(f"{host}: no addresses from the driver: {answer.error}")
    return rate(line for answer in answers.values() for line in answer.text.splitlines())


def rate(lines: Iterable[str]) -> float:
    """Addresses per second of all workers, who began together, until the last of them was done."""
    counts, microseconds = zip(*(map(int, line.split(" ")) for line in lines), strict=True)
    return float(sum(counts) / (max(microseconds) / 1e6))


def table(measured: Series) -> Table:
    """Show the figures."""
    made = tables.table(
        f"Addresses assigned (medians of {TURNS} turns)", "by the drivers of", measured.unit, "ratio"
    )
    for hosts in measured.values:
        made.add_row(hosts, f"{measured.median(hosts):.0f}", f"{measured.ratio(hosts, ALONE):.2f}")
    return made
