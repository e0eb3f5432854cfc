"""Evaluates policies for a packet, independently of the compiler and of the kernel.

Pure. The guard uses it before a change, and `lab why` for one packet. Tests compare it with the kernel: both
must decide the same for every packet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Literal

from components.firewall.rules.config import ICMP_TYPES, ICMPV6_ALWAYS_ACCEPTED, Family, IpAddress
from components.firewall.rules.resolve import Addresses, ResolvedPolicy, ResolvedRule
from components.shared.policy_values import contains_port

Verdict = Literal["accept", "drop", "reject"]
State = Literal["new", "established", "related", "invalid", "untracked"]
LINK_LOCAL = IPv6Network("fe80::/10")


@dataclass(frozen=True)
class Packet:
    """A packet to a host, or to a container's published port on it."""

    source: IpAddress
    destination: IpAddress
    """The address before translation: for a published port the host's, not the container's."""
    protocol: str
    """tcp, udp, sctp, icmp, igmp, or the name of another."""
    port: int | None = None
    source_port: int | None = None
    """None if it is not known; then it is not the port of a DHCP server."""
    icmp_type: int | None = None
    mac: str | None = None
    """The sender's MAC address. None if it is not known: then no rule with a MAC address matches, and
    `unknown_matches` lists those that may."""
    interface: str | None = None
    """The incoming interface. None if unknown: then rules with an interface match, unless they accept."""
    state: State = "new"
    published: bool = False
    """Whether it goes to a container's published port, and not to the host."""

    @property
    def family(self) -> Family:
        """The packet's address family."""
        return "ipv4" if self.source.version == 4 else "ipv6"

    @property
    def translated(self) -> bool:
        """Whether it reaches the container: only packets with a connection tracking entry are translated."""
        return self.published and self.state not in ("invalid", "untracked")


@dataclass(frozen=True)
class Decision:
    """The verdict on a packet, and the rule behind it."""

    verdict: Verdict
    reason: str
    """What decided, as a phrase."""
    policy: ResolvedPolicy | None = None
    rule: ResolvedRule | None = None
    """The first rule that matched; None if the policy's default or no policy decided."""

    @property
    def path(self) -> str | None:
        """The path of the rule or default in the config."""
        if self.rule:
            return self.rule.path
        return f"{self.policy.path}.default" if self.policy else None


@dataclass(frozen=True)
class UnknownMatch:
    """A rule that matches on an unknown field (MAC, interface), and would decide if the field matched."""

    policy: ResolvedPolicy
    rule: ResolvedRule
    field: str
    """The unknown field, as a phrase."""

    def __str__(self) -> str:
        return f"{self.field}: rule {self.rule.number} of {self.policy.name} ({self.rule.path})"


def decide(policies: Sequence[ResolvedPolicy], packet: Packet, *, limits_exceeded: bool = False) -> Decision:
    """Decide on a packet to a host.

    Args:
        policies: The host's active policies, in the order of evaluation.
        packet: The packet.
        limits_exceeded: Whether every rate limit is exceeded already.
    """
    if packet.interface == "lo" and not packet.translated:
        return Decision("accept", "loopback is accepted before any rule")
    if packet.state in ("established", "related"):
        return Decision("accept", "it belongs to an established connection")
    if not packet.translated and (reason := _always_accepted(packet)):
        return Decision("accept", f"{reason} before any rule")
    for policy, rule in _rules(policies, packet):
        if _matches(rule, packet) and not (rule.rule.rate_limit and limits_exceeded):
            return Decision(rule.rule.action, f"rule {rule.number} of {policy.name}", policy, rule)
    for policy in _applicable(policies, packet):
        if policy.policy.default == "drop":
            return Decision("drop", f"no rule matches, and the default of {policy.name} is drop", policy)
    return Decision("accept", "no rule matches")


def unknown_matches(
    policies: Sequence[ResolvedPolicy], packet: Packet, *, limits_exceeded: bool = False
) -> list[UnknownMatch]:
    """List the rules that may decide in place of the one that `decide` names.

    Args:
        policies: The host's active policies, in the order of evaluation.
        packet: The packet; its MAC address and its interface may be unknown (None).
        limits_exceeded: Whether every rate limit is exceeded already.
    """
    found = []
    for policy, rule in _rules(policies, packet):
        unknown = {
            "the sender's MAC address": rule.source_mac if packet.mac is None else None,
            "the incoming interface": rule.rule.interface if packet.interface is None else None,
        }
        matching = replace(
            packet,
            mac=packet.mac or rule.source_mac,
            interface=packet.interface or (rule.rule.interface or "").removesuffix("+") or None,
        )
        if _matches(rule, matching) and not (rule.rule.rate_limit and limits_exceeded):
            fields = [field for field, wanted in unknown.items() if wanted]
            if not fields:
                break
            found.append(UnknownMatch(policy, rule, " and ".join(fields)))
    return found


def _always_accepted(packet: Packet) -> str | None:
    """The kind of a packet that a host needs to stay on its network; None for any other packet."""
    if packet.protocol == "igmp" and packet.family == "ipv4":
        return "IGMP is accepted"
    if packet.protocol == "icmp" and packet.family == "ipv6" and packet.icmp_type in ICMPV6_ALWAYS_ACCEPTED:
        return "neighbour discovery is accepted"
    dhcp4 = packet.family == "ipv4" and (packet.source_port, packet.port) == (67, 68)
    dhcp6 = packet.destination in LINK_LOCAL and packet.port == 546
    if packet.protocol == "udp" and (dhcp4 or dhcp6):
        return "answers of DHCP servers are accepted"
    return None


def _applicable(policies: Sequence[ResolvedPolicy], packet: Packet) -> list[ResolvedPolicy]:
    """The policies that apply to a packet."""
    part = "published" if packet.translated else "host"
    return [policy for policy in policies if policy.policy.applies_to in (part, "both")]


def _rules(
    policies: Sequence[ResolvedPolicy], packet: Packet
) -> Iterator[tuple[ResolvedPolicy, ResolvedRule]]:
    for policy in _applicable(policies, packet):
        for rule in policy.rules:
            yield policy, rule


def _matches(resolved: ResolvedRule, packet: Packet) -> bool:
    rule = resolved.rule
    number = None if rule.icmp_type is None else ICMP_TYPES[packet.family].get(rule.icmp_type)
    return (
        packet.family in resolved.families
        and _contains(resolved.source, packet.source)
        and _contains(resolved.destination, packet.destination)
        and resolved.source_mac in (None, packet.mac)
        and _on_interface(rule.interface, packet, if_unknown=rule.action != "accept")
        and rule.protocol in (None, packet.protocol)
        and (
            not rule.ports
            or (packet.port is not None and any(contains_port(ports, packet.port) for ports in rule.ports))
        )
        and (rule.icmp_type is None or number == packet.icmp_type)
        and (not rule.state or packet.state in rule.state)
        # Docker publishes no ICMP, so a rule with protocol icmp is for the host only.
        and not (packet.translated and rule.protocol == "icmp")
    )


def _contains(addresses: Addresses | None, address: IpAddress) -> bool:
    return addresses is None or any(address in network for network in addresses.networks)


def _on_interface(interface: str | None, packet: Packet, *, if_unknown: bool) -> bool:
    if interface is None:
        return True
    if packet.interface is None:
        return if_unknown
    if interface.endswith("+"):
        return packet.interface.startswith(interface.removesuffix("+"))
    return packet.interface == interface
