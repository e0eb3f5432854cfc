"""Tries the flows between hosts that the lab needs, on the hosts that open them.

The guard judges policies by the addresses in the config. A host with several addresses may send from another
one, and a rule may match more than was intended. So the flows are tried before and after a firewall change.
"""

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from components.firewall.rules.guard import RequiredFlow
from components.firewall.rules.lab_hosts import LabHosts
from components.firewall.rules.resolve import OPERATOR
from components.hosts.remote import Answer, run
from diagnosis.tcp_probe import PROBE_SCRIPT, parse_probes, probe_variables

SSH_SECONDS = 10
"""How long SSH may take, in addition to the time that probes wait."""
MAX_PARALLEL = 32
"""How many hosts are asked at the same time."""
PROBE_SECONDS = 1
"""How long a single try waits for an answer."""

Probes = dict[str, dict[str, str]]
"""Purpose of a flow, by origin and target (`<host>:<port>`)."""
Key = tuple[str, str]
"""Origin and target of a flow."""


def probes_of(host: str, lab: LabHosts, flows: Sequence[RequiredFlow]) -> Probes:
    """List the TCP flows from and to a host.

    The operator's SSH is left out, because the confirmation of a firewall change is such a connection.
    """
    found: Probes = {}
    for flow in flows:
        ssh = flow.origin == OPERATOR and flow.port == lab.hosts[flow.host].ssh_port
        if flow.protocol == "tcp" and host in (flow.host, flow.origin) and not ssh:
            found.setdefault(flow.origin, {})[f"{flow.host}:{flow.port}"] = flow.purpose
    return found


def reach(
    ssh: Mapping[str, str],
    addresses: Mapping[str, str],
    probes: Mapping[str, Mapping[str, str]],
    *,
    patience: float = 0,
) -> dict[Key, str]:
    """Try flows from the hosts that open them, in parallel.

    Args:
        ssh: The ssh command by host.
        addresses: The address by host.
        probes: The flows to try.
        patience: How many seconds to retry a flow until its target is open; 0 to try once.

    Returns:
        The source address by flow, for the flows whose target is open. A host that does not answer has none.
    """

    def ask(origin: str) -> dict[Key, str]:
        targets = {
            f"{addresses[host]}:{port}": f"{host}:{port}" for host, port in map(_split, probes[origin])
        }
        if origin == OPERATOR:
            return {(origin, targets[target]): "" for target in targets if _opens(target, patience or 1)}
        found = parse_probes(_run(ssh[origin], list(targets), patience))
        return {(origin, targets[probe.target]): probe.source for probe in found if probe.reply == "open"}

    with ThreadPoolExecutor(max_workers=MAX_PARALLEL) as pool:
        return {key: source for found in pool.map(ask, probes) for key, source in found.items()}


def only(probes: Probes, keys: Sequence[Key]) -> Probes:
    """Return the probes of some flows."""
    some: Probes = {}
    for origin, target in keys:
        some.setdefault(origin, {})[target] = probes[origin][target]
    return some


def _split(target: str) -> tuple[str, str]:
    host, _, port = target.rpartition(":")
    return host, port


def _run(ssh: str, targets: Sequence[str], patience: float) -> Answer:
    seconds = max(PROBE_SECONDS, patience)
    variables = probe_variables(targets, seconds, until="open" if patience else "answered")
    answer = run(ssh, PROBE_SCRIPT.read_text(), variables, SSH_SECONDS + seconds)
    # sshd refuses some of many simultaneous connections (MaxStartups, sshd_config(5)).
    return answer if answer.reached else run(ssh, PROBE_SCRIPT.read_text(), variables, SSH_SECONDS + seconds)


def _opens(target: str, seconds: float) -> bool:
    host, port = _split(target)
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=seconds):
        return True
    return False
