"""Parses the output of xtables-monitor(8) and `iptables-save -c`: rules that packets met, and counters."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from components.firewall.rules.resolve import SECTION

# xtables-monitor prints address family and packet ID, then table:chain:rule:number:verdict and the rule.
_TRACE = re.compile(
    r" TRACE: \d+ (?P<packet>\S+) (?P<table>[^:]+):(?P<chain>[^:]+):(?:rule:\S+?|policy):"
    r"(?P<verdict>[A-Z]+|0x[0-9a-f]+)\S*\s*(?P<rule>.*)"
)
# From iptables 1.8.11 on, a line with a rule that is not of iptables has no newline at its end. The next
# line, perhaps of another packet, follows immediately.
_BEGINS = re.compile(r"\n|(?= TRACE: \d+ [0-9a-f]+ )|(?=PACKET: \d+ [0-9a-f]+ )")
# xtables-monitor has no name for NFT_RETURN (-5 in linux/netfilter/nf_tables.h).
_VERDICTS = {"0xfffffffb": "RETURN"}
_PROGRAM = re.compile(r"^(iptables|ip6tables) ")
_FAMILIES = {"iptables": "-4 ", "ip6tables": "-6 "}
DROPPED = ("DROP", "REJECT")
"""The verdicts that drop a packet."""
TRACE_TABLE = "calico-lab-trace"
"""The nftables table that marks the packets to trace. It has no verdict on them."""
# Some versions of iptables print a comment without spaces without quotes.
_LABEL = re.compile(r'-A CALICO-LAB-\S+ .*?--comment "?([a-z0-9-]+)/([0-9]+|default)\b')
_COUNTER = re.compile(r"(?P<program>ip6?tables) \[(?P<packets>\d+):(?P<bytes>\d+)\] (?P<rule>.*)")


def config_path(rule: str) -> str | None:
    """Return the path in the config of a rule of the lab.

    Args:
        rule: The rule as a host lists it: `-A <chain> ...`.

    Returns:
        The path; None if it is not a rule of the lab's policies.
    """
    found = _LABEL.search(rule)
    if found is None:
        return None
    part = "default" if found[2] == "default" else f"rules[{int(found[2]) - 1}]"
    return f"{SECTION}.policies.{found[1]}.{part}"


@dataclass(frozen=True)
class Step:
    """A rule that a traced packet met, or the policy of a chain."""

    table: str
    chain: str
    verdict: str
    rule: str
    """The rule as iptables lists it; empty for the policy of a chain."""

    @property
    def path(self) -> str | None:
        """The rule's path in the config; None if it is not a rule of the lab's policies."""
        return config_path(self.rule)


def split_lines(text: str) -> list[str]:
    """Split the output of xtables-monitor(8) into lines, each about one packet or step."""
    return _BEGINS.split(text)


def parse_step(line: str) -> tuple[str, Step] | None:
    """Parse a line of xtables-monitor(8).

    Returns:
        The packet's ID and the step; None for a line without a step.
    """
    found = _TRACE.match(line)
    if found is None:
        return None
    verdict = _VERDICTS.get(found["verdict"], found["verdict"])
    # Before the rule, iptables 1.8.9 prints the family (-4), and 1.8.11 the program's name.
    rule = _PROGRAM.sub(lambda program: _FAMILIES[program[1]], found["rule"].strip())
    return found["packet"], Step(found["table"], found["chain"], verdict, rule)


def parse_trace(text: str) -> list[Step]:
    """Return the steps of the first traced packet; empty if there was no packet."""
    steps = [found for line in split_lines(text) if (found := parse_step(line))]
    return [step for packet, step in steps if packet == steps[0][0] and step.table != TRACE_TABLE]


def dropping_step(steps: Iterable[Step]) -> Step | None:
    """Return the step that dropped the packet; None if none did."""
    return next((step for step in steps if step.verdict in DROPPED), None)


@dataclass(frozen=True)
class Counter:
    """A rule of the lab on a host, and the packets and bytes that matched it since it was loaded."""

    program: str
    """`iptables` or `ip6tables`."""
    rule: str
    packets: int
    bytes: int

    @property
    def path(self) -> str | None:
        """The rule's path in the config."""
        return config_path(self.rule)


def parse_counters(text: str) -> list[Counter]:
    """Parse the output of `counters.sh`, in the order of the rules on the host."""
    found = [line for each in text.splitlines() if (line := _COUNTER.fullmatch(each))]
    return [
        Counter(line["program"], line["rule"], int(line["packets"]), int(line["bytes"])) for line in found
    ]
