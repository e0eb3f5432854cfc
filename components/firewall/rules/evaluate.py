"""What a packet meets: an evaluator of policies, independent of the compiler and of the kernel.

Pure. The guard asks it before anything is applied, `lab why` asks it about one packet, and the tests hold it
against the kernel: both must decide the same of every packet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Literal

from components.firewall.rules.config import ICMP_TYPES, Family, IpAddress
from components.firewall.rules.resolve import Place, ResolvedPolicy, ResolvedRule
from components.shared.policy_values import contains_port

Verdict = Literal["accept", "drop", "reject"]
State = Literal["new", "established", "related", "invalid", "untracked"]
# The types of ICMPv6 that are let through before any rule.
NEIGHBOURS = (130, *range(134, 137))
LINK_LOCAL = IPv6Network("fe80::/10")


@dataclass(frozen=True)
class Packet:
    """A packet on its way into a host, or through it to a published port."""

    source: IpAddress
    destination: IpAddress
    """Where it was sent to: for a published port the host's address, not the container's."""
    protocol: str
    """tcp, udp, sctp, icmp, igmp, or the name of another."""
    port: int | None = None
    source_port: int | None = None
    """The sender's port; None where it is not known, and then it is none that means something."""
    icmp_type: int | None = None
    mac: str | None = None
    """The sender's MAC address; None where it is not known: then no rule about a MAC matches, and `doubts`
    lists those that may."""
    interface: str | None = None
    """Where it arrives; None where that is not known: then the worse is assumed."""
    state: State = "new"
    published: bool = False
    """Whether it is sent to a container's published port, and not to the host."""

    @property
    def family(self) -> Family:
        """The packet's address family."""
        return "ipv4" if self.source.version == 4 else "ipv6"

    @property
    def translated(self) -> bool:
        """Whether it reaches the container: only what connection tracking has an entry for is translated."""
        return self.published and self.state not in ("invalid", "untracked")


@dataclass(frozen=True)
class Decision:
    """What becomes of a packet, and what decided it."""

    verdict: Verdict
    reason: str
    """A phrase that names what decided."""
    policy: ResolvedPolicy | None = None
    rule: ResolvedRule | None = None
    """The rule that matched first; None where the policy's default or nothing of ours decided."""

    @property
    def path(self) -> str | None:
        """Where in the config the decision stands."""
        if self.rule:
            return self.rule.path
        return f"{self.policy.path}.default" if self.policy else None


@dataclass(frozen=True)
class Doubt:
    """A rule that asks for what is not known of a packet, and decides where that is as the rule has it."""

    policy: ResolvedPolicy
    rule: ResolvedRule
    on: str
    """What is not known."""

    def __str__(self) -> str:
        return f"{self.on}: rule {self.rule.number} of {self.policy.name} ({self.rule.path})"


def decide(policies: Sequence[ResolvedPolicy], packet: Packet, *, limits_spent: bool = False) -> Decision:
    """Decide about a packet to a host with these active policies.

    Args:
        policies: The host's active policies, in the order in which they are read.
        packet: The packet.
        limits_spent: Whether more packets have come already than any rate limit accepts.
    """
    if packet.interface == "lo" and not packet.translated:
        return Decision("accept", "loopback is let through before any rule")
    if packet.state in ("established", "related"):
        return Decision("accept", "it belongs to a connection that exists already")
    if not packet.translated and (needed := _needed(packet)):
        return Decision("accept", f"{needed} before any rule")
    for policy, rule in _rules(policies, packet):
        if _matches(rule, packet) and not (rule.rule.rate_limit and limits_spent):
            return Decision(rule.rule.action, f"rule {rule.number} of {policy.name}", policy, rule)
    for policy in _read(policies, packet):
        if policy.policy.default == "drop":
            return Decision("drop", f"no rule matches, and the default of {policy.name} is drop", policy)
    return Decision("accept", "no rule matches")


def doubts(policies: Sequence[ResolvedPolicy], packet: Packet, *, limits_spent: bool = False) -> list[Doubt]:
    """List the rules by which the decision may be another than `decide` has it.

    Args:
        policies: The host's active policies, in the order in which they are read.
        packet: The packet; what is None of its MAC address and its interface is not known.
        limits_spent: Whether more packets have come already than any rate limit accepts.
    """
    found = []
    for policy, rule in _rules(policies, packet):
        unknown = {
            "the sender's MAC address": rule.source_mac if packet.mac is None else None,
            "the interface that it comes in by": rule.rule.interface if packet.interface is None else None,
        }
        fitting = replace(
            packet,
            mac=packet.mac or rule.source_mac,
            interface=packet.interface or (rule.rule.interface or "").removesuffix("+") or None,
        )
        if _matches(rule, fitting) and not (rule.rule.rate_limit and limits_spent):
            on = [what for what, wanted in unknown.items() if wanted]
            if not on:
                break
            found.append(Doubt(policy, rule, " and ".join(on)))
    return found


def _needed(packet: Packet) -> str | None:
    """A phrase about a packet that the host needs to stay on its network; None for any other."""
    if packet.protocol == "igmp" and packet.family == "ipv4":
        return "IGMP is let through"
    if packet.protocol == "icmp" and packet.family == "ipv6" and packet.icmp_type in NEIGHBOURS:
        return "what neighbours need of each other is let through"
    dhcp4 = packet.family == "ipv4" and (packet.source_port, packet.port) == (67, 68)
    dhcp6 = packet.destination in LINK_LOCAL and packet.port == 546
    if packet.protocol == "udp" and (dhcp4 or dhcp6):
        return "the answers of DHCP servers are let through"
    return None


def _read(policies: Sequence[ResolvedPolicy], packet: Packet) -> list[ResolvedPolicy]:
    """The policies that such a packet meets."""
    part = "published" if packet.translated else "host"
    return [policy for policy in policies if policy.policy.applies_to in (part, "both")]


def _rules(
    policies: Sequence[ResolvedPolicy], packet: Packet
) -> Iterator[tuple[ResolvedPolicy, ResolvedRule]]:
    for policy in _read(policies, packet):
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
        and _arrives(rule.interface, packet, assumed=rule.action != "accept")
        and rule.protocol in (None, packet.protocol)
        and (
            not rule.ports
            or (packet.port is not None and any(contains_port(ports, packet.port) for ports in rule.ports))
        )
        and (rule.icmp_type is None or number == packet.icmp_type)
        and (not rule.state or packet.state in rule.state)
        # Docker publishes no ICMP, so a rule about it is about the host.
        and not (packet.translated and rule.protocol == "icmp")
    )


def _contains(place: Place | None, address: IpAddress) -> bool:
    return place is None or any(address in network for network in place.networks)


def _arrives(interface: str | None, packet: Packet, *, assumed: bool) -> bool:
    if interface is None:
        return True
    if packet.interface is None:
        return assumed
    if interface.endswith("+"):
        return packet.interface.startswith(interface.removesuffix("+"))
    return packet.interface == interface
