"""Facts of a candidate: a host in the config, before an `up` installs the lab on it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.hosts.remote import Answer
from config import ports
from diagnosis.facts import values_by_name
from diagnosis.tcp_probe import parse_probes

FACTS_SCRIPT = Path(__file__).with_name("doctor.sh")
PROBE_SECONDS = 4
EVERY_ADDRESS = (ports.EVERY_ADDRESS, "*", "[::]")
"""How `ss` and the lab list a program that listens on all addresses."""
_REPLIES = {
    "open": "connected",
    "refused": "Connection refused",
    "rejected": "rejected by a rule",
    "unreachable": "No route to host",
    "silent": f"no answer within {PROBE_SECONDS} s",
}
REACHED = (_REPLIES["open"], _REPLIES["refused"])
"""The results of a probe that came through. A host refuses if no program listens there yet."""


class Listener(NamedTuple):
    """An address and port where a program listens or is going to."""

    address: str
    port: int
    program: str

    def excludes(self, other: "Listener") -> bool:
        """Whether only one of the two can listen."""
        return self.port == other.port and (
            self.address == other.address or self.address in EVERY_ADDRESS or other.address in EVERY_ADDRESS
        )


@dataclass(frozen=True)
class Candidate:
    """The facts from one candidate."""

    address: str
    error: str = ""
    """Why it cannot be a host of the lab, and what to do next; then nothing else is known."""
    release: str = ""
    cpus: int = 0
    memory: int = 0
    """Bytes available to programs."""
    total_memory: int = 0
    """Bytes."""
    disk: int = 0
    """Free bytes where Docker stores its images."""
    clock_ahead: float = 0.0
    """Seconds by which its clock is ahead of the controller's, at least; negative if it is behind."""
    installed: bool = False
    """Whether the lab is installed on it."""
    listeners: Sequence[Listener] = ()
    """The programs that listen on TCP ports."""
    gateways: Mapping[str, str] = field(default_factory=dict)
    """The router on the path to another host, by that host's address; none on one network segment."""
    connections: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """The result of a probe, by address and TCP port."""


def parse(facts: Answer, probes: Answer, address: str, asked: tuple[float, float]) -> Candidate:
    """Parse a candidate's answers.

    Args:
        facts: The output of `doctor.sh`.
        probes: The output of `probe-tcp.sh`.
        address: The candidate's address.
        asked: The controller's time before and after `doctor.sh`, in seconds.
    """
    lines = values_by_name(facts.text)
    if "complete" not in lines or probes.status:
        return Candidate(address, facts.error or probes.error or "it broke off what it was saying")
    clock = float(lines["clock"][0])
    before, after = asked
    routes = [line.split() for line in lines["route"]]
    return Candidate(
        address,
        release=lines["release"][0],
        cpus=int(lines["cpus"][0]),
        memory=int(lines["memory"][0]) * 1024,
        total_memory=int(lines["total"][0]) * 1024,
        disk=int(lines["disk"][0]) * 1024,
        clock_ahead=max(clock - after, 0) or min(clock - before, 0),
        installed="lab" in lines,
        listeners=list(map(_listener, lines["listener"])),
        gateways={route[0]: route[2] for route in routes if route[1] == "via"},
        connections={
            (host, int(port)): _REPLIES[probe.reply]
            for probe in parse_probes(probes)
            for host, _, port in [probe.target.rpartition(":")]
        },
    )


def _listener(line: str) -> Listener:
    """Parse a line of `ss -Hltnp`: state, two queues, local address and port, peer, program."""
    words = line.split(maxsplit=5)
    address, _, port = words[3].rpartition(":")
    _, _, program = line.partition('users:(("')
    # The interface may follow the address: 127.0.0.53%lo.
    return Listener(address.partition("%")[0], int(port), program.partition('"')[0] or "a program")
