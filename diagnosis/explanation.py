"""Explains by the config's policies what happens to the first packet of a flow to a host. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.compile import CHAINS, compile_policies
from components.firewall.rules.config import ICMP_TYPES, IpAddress
from components.firewall.rules.evaluate import Decision, Packet, UnknownMatch, decide, unknown_matches
from components.firewall.rules.lab_hosts import LabHosts
from components.firewall.rules.resolve import OPERATOR, ResolvedPolicy
from components.shared.policy_values import PORT_PROTOCOLS
from diagnosis.xtables import config_path


@dataclass(frozen=True)
class Explanation:
    """The policies' verdict on one packet, and the rule behind it."""

    packet: Packet
    decision: Decision
    lines: tuple[str, ...]
    """The deciding rule as the host loads it, in one or more lines; empty if no rule of the lab decides."""
    doubts: tuple[UnknownMatch, ...] = ()
    """The rules that would decide otherwise, depending on an unknown field of the packet."""

    @property
    def label(self) -> str | None:
        """The comment of the deciding rule on the host; None if no rule of the lab decides."""
        if self.decision.policy is None:
            return None
        rule = self.decision.rule
        return f"{self.decision.policy.name}/{rule.number if rule else 'default'}"

    def __str__(self) -> str:
        packet, decision = self.packet, self.decision
        service = f"/{packet.port}" if packet.port else ""
        verdict = {"accept": "let through", "drop": "dropped", "reject": "rejected"}[decision.verdict]
        path = f" ({decision.path})" if decision.path else ""
        return (
            f"{packet.protocol}{service} from {packet.source} to {packet.destination} is {verdict}: "
            f"{decision.reason}{path}"
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
    """Explain what happens to the first packet of a flow.

    Args:
        policies: The active policies by host.
        lab: The lab's hosts.
        source: A host of the lab, `visitor`, `operator`, or an address.
        host: The destination.
        flow: `tcp/2380`, `udp/53`, `sctp/9`, `icmp` or `icmp/<type>`.
        published: Whether the packet goes to a container's published port.

    Raises:
        ValueError: An argument is invalid; the message says what is accepted.
    """
    if host not in lab.hosts:
        raise ValueError(
            f"{host}: is not a host of the lab; they are {', '.join(lab.hosts)}. For containers, to which "
            "network policies apply, run lab trace"
        )
    address = _address(lab, source)
    sender = lab.named(source) or lab.with_address(address)
    protocol, port, icmp_type = _flow(flow, address)
    packet = Packet(
        source=address,
        destination=ip_address(lab.hosts[host].address),
        protocol=protocol,
        port=port,
        icmp_type=icmp_type,
        mac=sender.mac if sender else None,
        published=published,
    )
    active = policies.get(host, ())
    decision = decide(active, packet)
    # An address that no host is known to have may be a second address of any host.
    possible = [
        doubt
        for doubt in unknown_matches(active, packet)
        if packet.mac or not sender or not (mac := doubt.rule.source_mac) or lab.may_have_mac(address, mac)
    ]
    return Explanation(packet, decision, _lines(active, packet, decision), tuple(possible))


def _lines(policies: Sequence[ResolvedPolicy], packet: Packet, decision: Decision) -> tuple[str, ...]:
    compiled = compile_policies(policies)
    chain = CHAINS["published" if packet.translated else "host"]
    sections = (compiled.ipv4 if packet.family == "ipv4" else compiled.ipv6).get(chain, {})
    lines = [f"-A {chain} {line}" for section in sections.values() for line in section]
    return tuple(line for line in lines if decision.path and config_path(line) == decision.path)


def _address(lab: LabHosts, source: str) -> IpAddress:
    if source == OPERATOR and lab.operator:
        return lab.operator[0]
    sender = lab.named(source)
    try:
        return ip_address(sender.address if sender else source)
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
