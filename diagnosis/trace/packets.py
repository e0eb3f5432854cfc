"""A packet's way through the kernel of one host, from what xtables-monitor(8) prints of it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnosis.explanation import OWN_TABLE, Step, end_of, read_step, trace_lines

_PACKET = re.compile(r"PACKET: \d+ (?P<packet>\S+) (?P<fields>.*)")
_FIELD = re.compile(r"(\w+)=(\S*)")
# The chains of side.sh: where a packet is marked, and what it is to the flow.
_MARKED = {"request": "request", "answer": "answer", "answer-here": "answer"}


@dataclass
class Passage:
    """What one host's kernel did with a packet."""

    came: str = ""
    """The interface that it came by; empty for one that the host itself has sent."""
    left: str = ""
    """The interface that it left by; empty where it did not."""
    source: str = ""
    """Its source address as it left, or as it was last seen."""
    says: str = ""
    """What it says, where this is not the question itself: `SYN ACK`, `ACK RST`, `ICMP type 3`."""
    ttl: int = 0
    """Its time to live as it came."""
    reached: set[str] = field(default_factory=set)
    """Which of these it reached, at their end: `delivered` to the host, `forwarded`, `leaves`."""
    steps: list[Step] = field(default_factory=list)
    """The rules that it met."""

    @property
    def end(self) -> Step | None:
        """The rule that ended its way; None where none did."""
        return end_of(self.steps)


def read(text: str) -> Mapping[str, Passage]:
    """Read the way of the first `request` and of the first `answer`, as far as they came here."""
    found: dict[str, Passage] = {}
    headers: dict[str, str] = {}
    # A packet's number is made from where it lies in memory, so that another one may have it next.
    following: dict[str, Passage] = {}
    for line in trace_lines(text):
        if header := _PACKET.match(line):
            packet, headers[header["packet"]] = header["packet"], header["fields"]
            if packet in following:
                _note(following[packet], header["fields"])
        elif step := read_step(line):
            packet, rule = step
            marks = rule.table == OWN_TABLE and rule.verdict == "CONTINUE" and _MARKED.get(rule.chain)
            if marks:
                following[packet] = passage = Passage()
                found.setdefault(marks, passage)
                _note(passage, headers.get(packet, ""))
            elif packet not in following:
                continue
            elif rule.table == OWN_TABLE:
                following[packet].reached |= {rule.chain} - set(_MARKED)
            else:
                following[packet].steps.append(rule)
    return found


def _note(passage: Passage, header: str) -> None:
    """Keep what a packet's header shows when it comes to the next of the kernel's hooks."""
    fields = dict(_FIELD.findall(header))
    passage.came = passage.came or fields.get("IN", "")
    passage.left = fields.get("OUT", "") or passage.left
    passage.source = fields.get("SRC", passage.source)
    passage.ttl = passage.ttl or int(fields.get("TTL", 0))
    flags = [word for word in ("SYN", "ACK", "RST") if word in header.split()]
    passage.says = " ".join(flags) or passage.says
