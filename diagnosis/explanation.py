"""Why a packet comes through to a host, or does not: by what the policies say, and by what the kernel did.

Pure. `explain` answers from the policies in the config. `read_trace` reads what `trace.sh` prints on the host
itself, where the rules of Calico, Docker and everybody else have their say too, and `read_counters` what
`counters.sh` prints there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.compile import CHAINS, compile_policies
from components.firewall.rules.config import ICMP_TYPES, IpAddress
from components.firewall.rules.evaluate import Decision, Packet, UnknownMatch, decide, unknown_matches
from components.firewall.rules.lab_hosts import LabHosts
from components.firewall.rules.resolve import OPERATOR, SECTION, ResolvedPolicy
from components.shared.policy_values import PORT_PROTOCOLS

# A line of xtables-monitor(8): family and id, then table:chain:rule:number:verdict and the rule itself.
_TRACE = re.compile(
    r" TRACE: \d+ (?P<packet>\S+) (?P<table>[^:]+):(?P<chain>[^:]+):(?:rule:\S+?|policy):"
    r"(?P<verdict>[A-Z]+|0x[0-9a-f]+)\S*\s*(?P<rule>.*)"
)
# From iptables 1.8.11 on, it ends no line after a rule that is not of iptables: what comes next, perhaps of
# another packet, stands in the same one.
_BEGINS = re.compile(r"\n|(?= TRACE: \d+ [0-9a-f]+ )|(?=PACKET: \d+ [0-9a-f]+ )")
# It has no word for NFT_RETURN (-5 in linux/netfilter/nf_tables.h).
_VERDICTS = {"0xfffffffb": "RETURN"}
_FAMILY = re.compile(r"^(iptables|ip6tables) ")
_FAMILIES = {"iptables": "-4 ", "ip6tables": "-6 "}
ENDS = ("DROP", "REJECT")
"""The verdicts with which a packet goes no further."""
OWN_TABLE = "calico-lab-trace"
"""What marks the packets that are traced; it decides nothing."""
# A comment without a space is printed without quotes by some versions of iptables.
_LABEL = re.compile(r'-A CALICO-LAB-\S+ .*?--comment "?([a-z0-9-]+)/([0-9]+|default)\b')
_COUNTER = re.compile(r"(?P<program>ip6?tables) \[(?P<packets>\d+):(?P<bytes>\d+)\] (?P<rule>.*)")


def path_of(rule: str) -> str | None:
    """Where in the config a rule stands that a host lists as `-A <chain> ...`, if it is one of ours."""
    found = _LABEL.search(rule)
    if found is None:
        return None
    place = "default" if found[2] == "default" else f"rules[{int(found[2]) - 1}]"
    return f"{SECTION}.policies.{found[1]}.{place}"


@dataclass(frozen=True)
class Explanation:
    """What the policies say of one packet."""

    packet: Packet
    decision: Decision
    lines: tuple[str, ...]
    """The deciding rule as a host loads it, in one or several lines; none where no rule of ours decides."""
    doubts: tuple[UnknownMatch, ...] = ()
    """The rules that may decide otherwise, by what is not known of the packet."""

    @property
    def label(self) -> str | None:
        """The comment that the deciding rule has on the host, if one of ours decides."""
        if self.decision.policy is None:
            return None
        rule = self.decision.rule
        return f"{self.decision.policy.name}/{rule.number if rule else 'default'}"

    def __str__(self) -> str:
        packet, decision = self.packet, self.decision
        service = f"/{packet.port}" if packet.port else ""
        verdict = {"accept": "let through", "drop": "dropped", "reject": "rejected"}[decision.verdict]
        where = f" ({decision.path})" if decision.path else ""
        return (
            f"{packet.protocol}{service} from {packet.source} to {packet.destination} is {verdict}: "
            f"{decision.reason}{where}"
        )


def explain(
    policies: Mapping[str, Sequence[ResolvedPolicy]],
    lab: LabHosts,
    source: str,
    host: str,
    flow: str,
    *,
    published: bool = False,
) -> Explanation:
    """Explain what becomes of the first packet of a flow.

    Args:
        policies: The active policies by host.
        lab: The machines.
        source: A machine of the lab, `operator`, or an address.
        host: The host that the packet goes to.
        flow: `tcp/2380`, `udp/53`, `sctp/9`, `icmp` or `icmp/<type>`.
        published: Whether it goes to a container's published port.

    Raises:
        ValueError: When one of these cannot be understood; the message says what would be.
    """
    if host not in lab.hosts:
        raise ValueError(f"{host}: is not a host of the lab; they are {', '.join(lab.hosts)}")
    address = _address(lab, source)
    machine = lab.named(source) or lab.with_address(address)
    protocol, port, icmp_type = _flow(flow, address)
    packet = Packet(
        source=address,
        destination=ip_address(lab.hosts[host].address),
        protocol=protocol,
        port=port,
        icmp_type=icmp_type,
        mac=machine.mac if machine else None,
        published=published,
    )
    here = policies.get(host, ())
    decision = decide(here, packet)
    # The address of no machine may be a second one of any.
    possible = [
        doubt
        for doubt in unknown_matches(here, packet)
        if packet.mac or not machine or not (mac := doubt.rule.source_mac) or lab.may_have_mac(address, mac)
    ]
    return Explanation(packet, decision, _lines(here, packet, decision), tuple(possible))


def _lines(policies: Sequence[ResolvedPolicy], packet: Packet, decision: Decision) -> tuple[str, ...]:
    compiled = compile_policies(policies)
    chain = CHAINS["published" if packet.translated else "host"]
    sections = (compiled.ipv4 if packet.family == "ipv4" else compiled.ipv6).get(chain, {})
    lines = [f"-A {chain} {line}" for section in sections.values() for line in section]
    return tuple(line for line in lines if decision.path and path_of(line) == decision.path)


def _address(lab: LabHosts, source: str) -> IpAddress:
    if source == OPERATOR and lab.operator:
        return lab.operator[0]
    machine = lab.named(source)
    try:
        return ip_address(machine.address if machine else source)
    except ValueError:
        known = ", ".join([*lab.hosts, *lab.others, OPERATOR])
        raise ValueError(f"{source}: is neither an address nor one of {known}") from None


def _flow(flow: str, source: IpAddress) -> tuple[str, int | None, int | None]:
    protocol, _, detail = flow.partition("/")
    if protocol in PORT_PROTOCOLS and detail.isascii() and detail.isdigit() and 1 <= int(detail) <= 65535:
        return protocol, int(detail), None
    types = ICMP_TYPES["ipv4" if source.version == 4 else "ipv6"]
    if protocol == "icmp" and (detail or "echo-request") in types:
        return protocol, None, types[detail or "echo-request"]
    raise ValueError(f"{flow}: must be like tcp/2380, udp/53, icmp or icmp/echo-request")


@dataclass(frozen=True)
class Step:
    """A rule that a traced packet met, or the end of a chain."""

    table: str
    chain: str
    verdict: str
    rule: str

    @property
    def path(self) -> str | None:
        """Where in the config the rule stands, if it is one of ours."""
        return path_of(self.rule)


def trace_lines(text: str) -> list[str]:
    """What xtables-monitor(8) prints, a packet or a step at a time."""
    return _BEGINS.split(text)


def read_step(line: str) -> tuple[str, Step] | None:
    """Read a line of xtables-monitor(8): which packet it is about, and the step; None for any other line."""
    found = _TRACE.match(line)
    if found is None:
        return None
    verdict = _VERDICTS.get(found["verdict"], found["verdict"])
    # In front of the rule stands the family: -4 from iptables 1.8.9, from 1.8.11 its own name.
    rule = _FAMILY.sub(lambda family: _FAMILIES[family[1]], found["rule"].strip())
    return found["packet"], Step(found["table"], found["chain"], verdict, rule)


def read_trace(text: str) -> list[Step]:
    """Read the way of the first packet that was traced; empty where none came."""
    steps = [found for line in trace_lines(text) if (found := read_step(line))]
    return [step for packet, step in steps if packet == steps[0][0] and step.table != OWN_TABLE]


def end_of(steps: Iterable[Step]) -> Step | None:
    """The rule that ended a packet's way; None where none did."""
    return next((step for step in steps if step.verdict in ENDS), None)


@dataclass(frozen=True)
class Counter:
    """A rule of ours on a host, and what it has met since it was loaded."""

    program: str
    rule: str
    packets: int
    bytes: int

    @property
    def path(self) -> str | None:
        """Where in the config the rule stands."""
        return path_of(self.rule)


def read_counters(text: str) -> list[Counter]:
    """Read the counters of the rules, in their order on the host."""
    found = [line for each in text.splitlines() if (line := _COUNTER.fullmatch(each))]
    return [
        Counter(line["program"], line["rule"], int(line["packets"]), int(line["bytes"])) for line in found
    ]
