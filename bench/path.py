"""Throughput and latency between containers on two hosts, beside those of the hosts themselves.

Host and containers take turns, so that what else the machine does meets both; a ratio is taken within a turn,
and the median of the ratios is told. The containers use the host's own iperf3 and ping.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.guests import Guest, guests
from lab import remote
from lab.stack import Outputs

TURNS = 5
SECONDS = 3
PINGS = 300
PORT = 5201

Shell = Callable[[str], str]


@dataclass(frozen=True)
class Turn:
    """One measurement of both paths."""

    host: float
    container: float

    @property
    def ratio(self) -> float:
        """The containers' value as a part of the hosts'."""
        return self.container / self.host


@dataclass(frozen=True)
class Comparison:
    """A quantity on both paths, in several turns."""

    what: str
    unit: str
    turns: tuple[Turn, ...]

    @property
    def host(self) -> float:
        """The hosts' median."""
        return median(turn.host for turn in self.turns)

    @property
    def container(self) -> float:
        """The containers' median."""
        return median(turn.container for turn in self.turns)

    @property
    def ratio(self) -> float:
        """The median of the turns' ratios."""
        return median(turn.ratio for turn in self.turns)


def on_host(ssh: str) -> Shell:
    """A shell on a host."""

    def run(command: str) -> str:
        answer = remote.run(ssh, command)
        if answer.status != 0:
            raise RuntimeError(f"{ssh}: {command}: {answer.error or answer.text}")
        return answer.text

    return run


def in_guest(guest: Guest) -> Shell:
    """A shell in a container."""
    return guest.run


def throughput(server: Shell, client: Shell, address: str) -> float:
    """Gbit/s of one TCP connection."""
    server(f"iperf3 --server --one-off --daemon --bind {address} --port {PORT}")
    server(f"for _ in $(seq 50); do ss -Hltn sport = :{PORT} | grep -q . && exit; sleep 0.1; done; exit 1")
    told = json.loads(client(f"iperf3 --client {address} --port {PORT} --time {SECONDS} --json"))
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def latency(client: Shell, address: str) -> float:
    """Microseconds there and back, on average over many pings."""
    told = client(f"ping -q -n -c {PINGS} -i 0.002 {address}")
    match = re.search(r"= [\d.]+/([\d.]+)/", told)
    if not match:
        raise ValueError(f"ping to {address} told no times: {told}")
    return float(match[1]) * 1000


def measure(outputs: Outputs) -> list[Comparison]:
    """Measure between the first two hosts, and between a container on each."""
    here, there = list(outputs.hosts)[:2]
    with guests(outputs, [here, there]) as guest:
        host_client, host_server = on_host(outputs.ssh[here]), on_host(outputs.ssh[there])
        guest_client, guest_server = in_guest(guest[here]), in_guest(guest[there])
        host_address, guest_address = outputs.hosts[there], guest[there].address
        rates = [
            Turn(
                throughput(host_server, host_client, host_address),
                throughput(guest_server, guest_client, guest_address),
            )
            for _ in range(TURNS)
        ]
        times = [
            Turn(latency(host_client, host_address), latency(guest_client, guest_address))
            for _ in range(TURNS)
        ]
    return [
        Comparison("throughput", "Gbit/s", tuple(rates)),
        Comparison("round trip", "µs", tuple(times)),
    ]
