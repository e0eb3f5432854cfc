"""The firewall tests' setup: one target host, three senders, and the outcome of each flow between them.

`exercises.json` has the outcome of flows by policy; every flow that it does not name stays open.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.hosts import remote
from workspace.outputs import Outputs

HERE = Path(__file__).parent
EXERCISES: dict[str, dict[str, dict[str, str]]] = json.loads((HERE / "exercises.json").read_text())
FLOWS = (HERE / "flows.sh").read_text()
TARGET = "a0"
OTHER_ADDRESS = "172.16.6.67"
PORTS = (22, 80, 2379)
SENDERS = {
    "visitor": ("visitor", ""),
    "visitor with another address": ("visitor", OTHER_ADDRESS),
    "a1": ("a1", ""),
}
LISTENER = "lab-test-web"

Flows = dict[str, dict[str, str]]
"""What comes of each flow, by sender: open, refused or silent."""


def everything(outcome: str, *ports: int) -> dict[str, str]:
    """One outcome of all flows of a sender, those to more ports included."""
    return {**{f"tcp/{port}": outcome for port in (*PORTS, *ports)}, "ping": outcome}


OPEN = everything("open")


def set_up(outputs: Outputs) -> None:
    """Have something that listens on the target's port 80, and a second address for the visitor.

    A kernel sends one ICMP message a second to an address, after a handful (icmp_ratelimit, icmp(7)). For the
    decisions to be seen however quickly they are asked for, the target's sends as many as there are.
    """
    listen = (
        "sysctl -q -w net.ipv4.icmp_ratelimit=0; "
        f"systemctl is-active --quiet {LISTENER} || "
        f"systemd-run --quiet --collect --unit {LISTENER} nc -l -k 0.0.0.0 80"
    )
    second = f"ip address replace {OTHER_ADDRESS}/32 dev eth0"
    for machine, script in ((TARGET, listen), ("visitor", second)):
        answer = remote.run(outputs.ssh[machine], script)
        assert answer.status == 0, f"{machine}: {answer.error}"


def take_down(outputs: Outputs) -> None:
    """Remove what `set_up` has made."""
    remote.run(outputs.ssh[TARGET], f"systemctl stop {LISTENER}; sysctl -q -w net.ipv4.icmp_ratelimit=1000")
    remote.run(outputs.ssh["visitor"], f"ip address del {OTHER_ADDRESS}/32 dev eth0")


def seen(outputs: Outputs, *ports: int) -> Flows:
    """What comes of each flow to the target, of those to more ports too."""

    def ask(sender: str) -> dict[str, str]:
        machine, source = SENDERS[sender]
        variables = {
            "TARGET": outputs.hosts[TARGET],
            "SOURCE": source,
            "PORTS": " ".join(str(port) for port in (*PORTS, *ports)),
        }
        answer = remote.run(outputs.ssh[machine], FLOWS, variables)
        assert answer.status == 0, f"{machine}: {answer.error}"
        words = (line.partition(" ") for line in answer.text.splitlines())
        return {flow: outcome for flow, _, outcome in words}

    with ThreadPoolExecutor() as pool:
        return dict(zip(SENDERS, pool.map(ask, SENDERS), strict=True))


def all_open(outputs: Outputs) -> None:
    """Fail while something does not get through."""
    assert seen(outputs) == dict.fromkeys(SENDERS, OPEN)


def kernel_rules(outputs: Outputs) -> list[str]:
    """Everything in the target's packet filters, of whomever, without counters and comments."""
    answer = remote.run(outputs.ssh[TARGET], "iptables-save; ip6tables-save; ipset list -name 2>/dev/null")
    assert answer.status == 0, answer.error
    return [
        re.sub(r"\[\d+:\d+\]", "", line).strip()
        for line in answer.text.splitlines()
        if not line.startswith("#")
    ]
