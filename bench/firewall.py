"""Measures a firewall with ten thousand sources: the time to apply it, and its cost for accepted packets.

Each round measures no rules, the sources as a set (one rule), and the sources as a list (a rule for each).
The rules are applied as the lab's own, from the policy to the confirmation over a new connection, but without
Pulumi, because a config is not made for ten thousand rules.
"""

import pathlib
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from rich.table import Table

from bench import bare, path, tables
from bench.lifecycle import BenchError
from bench.path import Path
from bench.samples import Series, rotated
from components.firewall.host_firewall import HostFirewallProvider, inputs
from components.firewall.rules.compile import compile_policies
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.lab_hosts import LabHosts, lab_hosts
from components.firewall.rules.resolve import resolve
from components.hosts import remote
from config.model import flows
from diagnosis.reachability import Probes, probes_of
from lab.config import read_config
from workspace.outputs import Outputs

ROUNDS = 5
SOURCES = 10_000
CONNECTIONS = 2000
# A closed port: the kernel answers with a reset, and no program takes part.
CLOSED_PORT = 5999
NOTHING = "no rules"
SET = "one set"
FLAT = "flat list"
# Addresses of RFC 6598, which no lab uses. Every second one, so that they do not form ranges.
_FIRST = int(ip_address("100.64.0.0"))
ADDRESSES = [str(ip_address(_FIRST + 2 * number)) for number in range(SOURCES)]
RULES: dict[str, list[dict[str, Any]]] = {
    NOTHING: [],
    SET: [{"action": "drop", "source": "many"}],
    FLAT: [{"action": "drop", "source": address} for address in ADDRESSES],
}
_CONNECT = pathlib.Path(__file__).with_name("connections.sh")


@dataclass(frozen=True)
class Costs:
    """What was measured, in the same rounds."""

    applied: Series
    throughput: Series
    connections: Series

    def document(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "applied": self.applied.document(FLAT),
            "throughput": self.throughput.document(NOTHING),
            "connections": self.connections.document(NOTHING),
        }


def properties(kind: str, host: str, lab: LabHosts, probes: Probes, ssh_config: str) -> dict[str, Any]:
    """The properties of a host's firewall with the sources as a set or as a list."""
    policy = {"hosts": [host], "rules": RULES[kind]}
    config = FirewallConfig.model_validate({"sets": {"many": ADDRESSES}, "policies": {"bench": policy}})
    return inputs(
        host=host,
        machine="",
        url=f"ssh://{host}",
        ssh_config=ssh_config,
        compiled=compile_policies(resolve(config, lab)[host]),
        operator=[str(address) for address in lab.operator],
        probes=probes,
        addresses={other: machine.address for other, machine in lab.hosts.items()},
        undo_seconds=config.undo_seconds,
        allow_lockout=False,
    )


def measure(name: str, outputs: Outputs) -> Costs:
    """Measure on the first host, with the second as the sender.

    Raises:
        BenchError: The host has policies of its own.
    """
    host, sender = list(outputs.hosts)[:2]
    if outputs.firewall.get(host):
        raise BenchError(f"{host} has firewall policies; next: switch them off, and measure again")
    config = read_config(name)
    lab = lab_hosts(config.hosts, config.firewall)
    ssh_config = shlex.split(outputs.ssh[host])[2]
    client, server = partial(bare.on_host, outputs.ssh[sender]), partial(bare.on_host, outputs.ssh[host])
    path_ = Path(client, server, outputs.hosts[host])
    probes = probes_of(host, lab, flows(config, lab))
    loads = {kind: properties(kind, host, lab, probes, ssh_config) for kind in (SET, FLAT)}
    applied: dict[str, list[float]] = {kind: [] for kind in loads}
    rates: dict[str, list[float]] = {kind: [] for kind in RULES}
    connections: dict[str, list[float]] = {kind: [] for kind in RULES}
    for number in range(ROUNDS):
        for kind in rotated(list(RULES), number):
            with _loaded(loads.get(kind)) as seconds:
                if kind in applied:
                    applied[kind].append(seconds)
                rates[kind].append(path.throughput(path_))
                connections[kind].append(_connections(outputs.ssh[sender], outputs.hosts[host]))
    return Costs(
        _series("applied and confirmed", "s", applied),
        _series("throughput", "Gbit/s", rates),
        _series("new connections", "1/s", connections),
    )


def _series(what: str, unit: str, values: dict[str, list[float]]) -> Series:
    return Series(what, unit, {thing: tuple(measured) for thing, measured in values.items()})


@contextmanager
def _loaded(props: dict[str, Any] | None) -> Iterator[float]:
    """Apply rules to a host, and remove them at the end; provides the seconds until they were confirmed."""
    if props is None:
        yield 0.0
        return
    provider = HostFirewallProvider()
    started = time.monotonic()
    created = provider.create(props)
    seconds = time.monotonic() - started
    try:
        yield seconds
    finally:
        provider.delete(created.id, created.outs or {})


def _connections(ssh: str, address: str) -> float:
    """New connections per second, one after the other."""
    variables = {"ADDRESS": address, "PORT": str(CLOSED_PORT), "COUNT": str(CONNECTIONS)}
    answer = remote.run(ssh, _CONNECT.read_text(), variables, seconds=60)
    if answer.status != 0:
        raise BenchError(f"{ssh}: {answer.error}")
    return CONNECTIONS / (int(answer.text) / 1e6)


def table(measured: Costs) -> Table:
    """Show the figures."""
    made = tables.table(
        f"A firewall with {SOURCES:,} sources (medians of {ROUNDS} rounds; ratios to: {NOTHING})",
        "the sources are",
        measured.applied.what + ", s",
        measured.throughput.unit,
        "ratio",
        measured.connections.what + ", 1/s",
        "ratio",
    )
    for kind in RULES:
        seconds = f"{measured.applied.median(kind):.2f}" if kind in measured.applied.samples else ""
        made.add_row(
            kind,
            seconds,
            f"{measured.throughput.median(kind):.2f}",
            f"{measured.throughput.ratio(kind, NOTHING):.3f}",
            f"{measured.connections.median(kind):.0f}",
            f"{measured.connections.ratio(kind, NOTHING):.3f}",
        )
    return made
