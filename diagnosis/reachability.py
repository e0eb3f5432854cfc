"""Which of the lab's own flows come about: asked of the hosts that open them, over new connections.

The guard judges what the config says of hosts. A host with several addresses may send from another one than
its peers know, and a rule may match what nobody thought of: so the flows are tried before a change and after.
"""

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from components.firewall.rules.guard import RequiredFlow
from components.firewall.rules.lab_hosts import LabHosts
from components.firewall.rules.resolve import OPERATOR
from components.hosts.remote import Answer, run

REACH = Path(__file__).with_name("scripts") / "reach.sh"
# What a host may take to be reached by SSH, beside the time that its probes wait.
SSH_SECONDS = 10
# How many hosts are asked at the same time.
AT_ONCE = 32
# How long a look waits for what does not answer, in quarters of a second.
QUARTERS = 4

Probes = dict[str, dict[str, str]]
"""What a flow is for, by its origin and its target, `<host>:<port>`."""
Key = tuple[str, str]
"""A flow's origin and its target."""


def probes_of(host: str, lab: LabHosts, flows: Sequence[RequiredFlow]) -> Probes:
    """List what can be tried of the flows to and from a host: those over TCP.

    The operator's SSH is left out, because the confirmation itself is such a connection.
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
    """Try flows from the hosts that open them, all at the same time.

    Args:
        ssh: The ssh commands by host.
        addresses: The hosts' addresses.
        probes: What to try.
        patience: For how many seconds a flow is tried again until it comes about; 0 for a look, which takes a
            second at most where something does not answer.

    Returns:
        The flows that come about, with the address that their packets come from. A host that does not answer
        has none.
    """

    def ask(origin: str) -> dict[Key, str]:
        targets = {
            f"{addresses[host]}:{port}": f"{host}:{port}" for host, port in map(_split, probes[origin])
        }
        if origin == OPERATOR:
            return {(origin, targets[target]): "" for target in targets if _opens(target, patience or 1)}
        answer = _run(ssh[origin], list(targets), patience)
        lines = [line.split() for line in answer.text.splitlines()] if not answer.status else []
        return {(origin, targets[target]): source for _, target, source in lines}

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return {key: source for found in pool.map(ask, probes) for key, source in found.items()}


def only(probes: Probes, keys: Sequence[Key]) -> Probes:
    """Some of the probes."""
    some: Probes = {}
    for origin, target in keys:
        some.setdefault(origin, {})[target] = probes[origin][target]
    return some


def _split(target: str) -> tuple[str, str]:
    host, _, port = target.rpartition(":")
    return host, port


def _run(ssh: str, targets: Sequence[str], patience: float) -> Answer:
    variables = {
        "TARGETS": " ".join(targets),
        "QUARTERS": str(max(QUARTERS, int(patience * 4))),
        "UNTIL": "open" if patience else "answered",
    }
    answer = run(ssh, REACH.read_text(), variables, SSH_SECONDS + patience)
    # sshd turns down some of the connections that come at once (MaxStartups, sshd_config(5)).
    return answer if answer.reached else run(ssh, REACH.read_text(), variables, SSH_SECONDS + patience)


def _opens(target: str, seconds: float) -> bool:
    host, port = _split(target)
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=seconds):
        return True
    return False
