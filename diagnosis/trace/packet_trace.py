"""Trace of a packet through the kernel of one host, from what xtables-monitor(8) prints. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnosis.xtables import TRACE_TABLE, Step, dropping_step, parse_step, split_lines

_PACKET = re.compile(r"PACKET: \d+ (?P<packet>\S+) (?P<fields>.*)")
_FIELD = re.compile(r"(\w+)=(\S*)")
# The chains of watch.sh that mark packets, and what each marks.
_MARKING = {"request": "request", "answer": "answer", "answer-output": "answer"}


@dataclass
class PacketTrace:
    """What one host's kernel did with a packet."""

    in_interface: str = ""
    """The interface that it came in by; empty if the host sent it."""
    out_interface: str = ""
    """The interface that it went out by; empty if it did not."""
    source: str = ""
    """Its source address where it was last seen, after NAT."""
    summary: str = ""
    """What kind of answer it is: `SYN ACK`, `ACK RST`, `ICMP type 3`; empty for the request."""
    ttl: int = 0
    """Its time to live where it was first seen."""
    reached: set[str] = field(default_factory=set)
    """How far it came: `delivered` (to the host), `forwarded`, `sent` (out by an interface)."""
    steps: list[Step] = field(default_factory=list)
    """The rules that it met."""

    @property
    def dropped_by(self) -> Step | None:
        """The step that dropped it; None if none did."""
        return dropping_step(self.steps)


def parse_packet_traces(text: str) -> Mapping[str, PacketTrace]:
    """Return the traces of the first `request` and the first `answer`, if they came to this host.

    Args:
        text: What xtables-monitor(8) printed.
    """
    found: dict[str, PacketTrace] = {}
    headers: dict[str, str] = {}
    # A packet's ID comes from its address in memory: a later packet may have the same one.
    current: dict[str, PacketTrace] = {}
    for line in split_lines(text):
        if header := _PACKET.match(line):
            packet, headers[header["packet"]] = header["packet"], header["fields"]
            if packet in current:
                _add_header(current[packet], header["fields"])
        elif step := parse_step(line):
            packet, rule = step
            marked = rule.table == TRACE_TABLE and rule.verdict == "CONTINUE" and _MARKING.get(rule.chain)
            if marked:
                current[packet] = trace = PacketTrace()
                found.setdefault(marked, trace)
                _add_header(trace, headers.get(packet, ""))
            elif packet not in current:
                continue
            elif rule.table == TRACE_TABLE:
                current[packet].reached |= {rule.chain} - set(_MARKING)
            else:
                current[packet].steps.append(rule)
    return found


def _add_header(trace: PacketTrace, header: str) -> None:
    """Add what a packet's header shows at the next netfilter hook."""
    fields = dict(_FIELD.findall(header))
    trace.in_interface = trace.in_interface or fields.get("IN", "")
    trace.out_interface = fields.get("OUT", "") or trace.out_interface
    trace.source = fields.get("SRC", trace.source)
    trace.ttl = trace.ttl or int(fields.get("TTL", 0))
    flags = [word for word in ("SYN", "ACK", "RST") if word in header.split()]
    trace.summary = " ".join(flags) or trace.summary
