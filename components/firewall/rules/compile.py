"""Compiles resolved policies to one `iptables-restore --noflush` document per address family.

Pure and deterministic: the same policies give the same bytes. Rules are stored by chain and policy, so that
a preview shows a change by policy. They are in two chains of the project: one for traffic to the host, to
which INPUT jumps, and one for traffic to published container ports, to which DOCKER-USER jumps. Every rule
has a comment `<policy>/<number>`, by which counters, the kernel's trace and `lab why` find it in the config.

`accept` is RETURN: the packet leaves the project's chain, and other rules of the host, such as Calico's and
Docker's, still apply. So the project's rules only restrict. Their order relative to other programs' jumps
makes no difference, and removing them locks nobody out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from components.firewall.rules.config import (
    ICMP_TYPES,
    ICMPV6_ALWAYS_ACCEPTED,
    Family,
    RateLimit,
    Reject,
    Rule,
)
from components.firewall.rules.resolve import FAMILIES, Addresses, ResolvedPolicy, ResolvedRule

HOST_CHAIN = "CALICO-LAB-INPUT"
PUBLISHED_CHAIN = "CALICO-LAB-PUBLISHED"
CHAINS = {"host": HOST_CHAIN, "published": PUBLISHED_CHAIN}

# Every chain begins with these. Loopback is the host's traffic to itself. Established connections keep the
# operator's session open, so rules are about new connections.
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
LOOPBACK = "-i lo -j RETURN"
# Multicast listener queries in IPv4 (RFC 3376). A number, because iptables reads the name from
# /etc/protocols, which not every host has.
IGMP = "-p 2 -j RETURN"
# A host whose DHCP lease is not renewed loses its address. A client sends to a multicast or broadcast
# address, so connection tracking does not recognise the answers. In IPv4 they come from port 67 (RFC 2131,
# 4.1); in IPv6 from any port to the client's link-local address (RFC 8415, 7.2 and 18.2).
DHCP: dict[Family, str] = {
    "ipv4": "-p udp -m udp --sport 67 --dport 68 -j RETURN",
    "ipv6": "-d fe80::/10 -p udp -m udp --dport 546 -j RETURN",
}
# DOCKER-USER gets all routed packets, Calico's too. Packets to a published port have been translated (DNAT).
# Connection tracking translates only packets that it has an entry for: an invalid or untracked packet to a
# published port goes to the host itself, and INPUT filters it.
NOT_PUBLISHED = "-m conntrack ! --ctstate DNAT -j RETURN"
PREAMBLES: dict[tuple[str, Family], tuple[str, ...]] = {
    (HOST_CHAIN, "ipv4"): (LOOPBACK, ESTABLISHED, IGMP, DHCP["ipv4"]),
    (HOST_CHAIN, "ipv6"): (
        LOOPBACK,
        ESTABLISHED,
        *(f"-p ipv6-icmp -m icmp6 --icmpv6-type {number} -j RETURN" for number in ICMPV6_ALWAYS_ACCEPTED),
        DHCP["ipv6"],
    ),
    (PUBLISHED_CHAIN, "ipv4"): (NOT_PUBLISHED, ESTABLISHED),
    (PUBLISHED_CHAIN, "ipv6"): (NOT_PUBLISHED, ESTABLISHED),
}

REJECT_WITH: dict[Family, dict[Reject, str]] = {
    "ipv4": {
        "port-unreachable": "icmp-port-unreachable",
        "host-unreachable": "icmp-host-unreachable",
        "net-unreachable": "icmp-net-unreachable",
        "admin-prohibited": "icmp-admin-prohibited",
        "tcp-reset": "tcp-reset",
    },
    "ipv6": {
        "port-unreachable": "icmp6-port-unreachable",
        "host-unreachable": "icmp6-addr-unreachable",
        "net-unreachable": "icmp6-no-route",
        "admin-prohibited": "icmp6-adm-prohibited",
        "tcp-reset": "tcp-reset",
    },
}
UNITS = {"second": "sec", "minute": "min", "hour": "hour", "day": "day"}
STATES = ("invalid", "new", "untracked")
# A multiport match has at most 15 ports, and a range counts as two (iptables-extensions(8)).
MULTIPORT_SIZE = 15
# The maximum length of a log prefix (iptables-extensions(8)).
LOG_PREFIX_SIZE = 29


# The sections of a chain that belong to no policy. The name of a policy has no parentheses.
ALWAYS = "(always)"
DEFAULT = "(default)"

Chains = dict[str, dict[str, list[str]]]
"""Rules by chain and section: `ALWAYS`, each policy by its name, and `DEFAULT`."""


@dataclass(frozen=True)
class Compiled:
    """The rules and sets of one host."""

    policies: list[str]
    """The active policies, in the order of evaluation."""
    ipv4: Chains
    """The rules for iptables; empty if no policy has a rule for IPv4."""
    ipv6: Chains
    """The rules for ip6tables; empty if no policy has a rule for IPv6."""
    sets: dict[str, str]
    """The members of each ipset, one per line, by `<set>/<family>`."""


def compile_policies(policies: Sequence[ResolvedPolicy]) -> Compiled:
    """Compile the active policies of one host, in the order of evaluation."""
    names = [policy.name for policy in policies]
    families = {family: _chains(family, policies) for family in FAMILIES}
    rules = [rule for policy in policies for rule in policy.rules]
    sides = [addresses for rule in rules for addresses in (rule.source, rule.destination)]
    sets = {
        _set_key(addresses, family): _set_members(addresses, family)
        for addresses in sides
        if addresses is not None and addresses.set_name
        for family in FAMILIES
        if f" {_ipset(addresses, family)} " in restore_document(families[family], names)
    }
    return Compiled(names, families["ipv4"], families["ipv6"], dict(sorted(sets.items())))


def restore_document(chains: Chains, policies: Sequence[str]) -> str:
    """Render rules for `iptables-restore --noflush`, which replaces the chains that it declares.

    Args:
        chains: The rules of one family.
        policies: The names of the policies, in the order of evaluation.
    """
    if not chains:
        return ""
    declared = [f":{chain} - [0:0]" for chain in CHAINS.values() if chain in chains]
    rules = [
        f"-A {chain} {rule}"
        for chain in CHAINS.values()
        if chain in chains
        for section in (ALWAYS, *policies, DEFAULT)
        for rule in chains[chain].get(section, [])
    ]
    return "\n".join(["*filter", *declared, *rules, "COMMIT", ""])


def ipset_name(key: str, members: str) -> str:
    """The name of an ipset, at most 31 characters.

    It has a hash of the members, so that a document refers to exactly the sets that it was compiled with. So
    both change, and are rolled back, in one step.

    Args:
        key: `<set>/<family>`.
        members: The members, one per line.
    """
    name, family = key.split("/")
    digest = hashlib.sha256(members.encode()).hexdigest()[:8]
    return f"cl{4 if family == 'ipv4' else 6}-{name}-{digest}"


def _set_key(addresses: Addresses, family: Family) -> str:
    return f"{addresses.set_name}/{family}"


def _set_members(addresses: Addresses, family: Family) -> str:
    return "".join(f"{network}\n" for network in addresses.of(family))


def _ipset(addresses: Addresses, family: Family) -> str:
    return ipset_name(_set_key(addresses, family), _set_members(addresses, family))


def _chains(family: Family, policies: Sequence[ResolvedPolicy]) -> Chains:
    chains: Chains = {}
    for part, chain in CHAINS.items():
        applicable = [policy for policy in policies if policy.policy.applies_to in (part, "both")]
        sections = {
            policy.name: [line for rule in policy.rules for line in _rule(family, part, rule)]
            for policy in applicable
        }
        dropping = [policy.name for policy in applicable if policy.policy.default == "drop"]
        # One rule is enough. It names the first of these policies, as the evaluator does.
        sections[DEFAULT] = [f"{_comment(f'{name}/default')} -j DROP" for name in dropping[:1]]
        filled = {section: lines for section, lines in sections.items() if lines}
        if filled:
            chains[chain] = {ALWAYS: list(PREAMBLES[chain, family]), **filled}
    return chains


def _rule(family: Family, part: str, resolved: ResolvedRule) -> Iterator[str]:
    """The iptables rules of one rule: one for each combination of what a single one cannot list."""
    rule = resolved.rule
    if family not in resolved.families or (part == "published" and rule.protocol == "icmp"):
        return
    label = f"{resolved.policy}/{resolved.number}"
    comment = _comment(f"{label} {rule.comment}" if rule.comment else label)
    for source, target in product(_matches("s", resolved.source, family), _targets(part, resolved, family)):
        # In the order of iptables-save, so that a document can be compared with it.
        parts = [
            source.address,
            target.address,
            f"-i {rule.interface}" if rule.interface else "",
            _protocol(rule, family),
            f"-m mac --mac-source {resolved.source_mac}" if resolved.source_mac else "",
            target.ports,
            _icmp_type(rule, family),
            _conntrack(rule, target),
            source.set,
            target.set,
        ]
        matches = [part for part in parts if part]
        if rule.log:
            prefix = f'"{label[: LOG_PREFIX_SIZE - 1]} "'
            yield " ".join([*matches, "-m limit --limit 5/sec", comment, f"-j LOG --log-prefix {prefix}"])
        limit = [_limit(rule.rate_limit)] if rule.rate_limit else []
        yield " ".join([*matches, *limit, comment, _verdict(rule, family)])


@dataclass(frozen=True)
class _Match:
    """The options for a packet's source, or for its destination and ports."""

    address: str = ""
    set: str = ""
    ports: str = ""
    original: str = ""
    """Options of the conntrack match: the original destination, before Docker's translation."""


def _matches(option: str, addresses: Addresses | None, family: Family) -> list[_Match]:
    if addresses is None:
        return [_Match()]
    if addresses.set_name:
        direction = {"s": "src", "d": "dst"}[option]
        return [_Match(set=f"-m set --match-set {_ipset(addresses, family)} {direction}")]
    return [
        _Match(address=f"-{option} {network}" if network.prefixlen else "")
        for network in addresses.of(family)
    ]


def _targets(part: str, resolved: ResolvedRule, family: Family) -> list[_Match]:
    """Match destination and ports: the packet's own, or for published ports those before translation."""
    if part == "host":
        matches = _matches("d", resolved.destination, family)
        ports = _port_matches(resolved.rule)
        return [replace(match, ports=port) for match, port in product(matches, ports)]
    networks = resolved.destination.of(family) if resolved.destination else ()
    addresses = [f"--ctorigdst {network}" for network in networks if network.prefixlen] or [""]
    ranges = [f"--ctorigdstport {port.replace('-', ':')}" for port in resolved.rule.ports] or [""]
    return [_Match(original=f"{address} {port}".strip()) for address, port in product(addresses, ranges)]


def _port_matches(rule: Rule) -> list[str]:
    ranges = [port.replace("-", ":") for port in rule.ports]
    if len(ranges) < 2:
        return [f"-m {rule.protocol} --dport {port}" for port in ranges] or [""]
    groups: list[list[str]] = [[]]
    for port in ranges:
        size = sum(1 + (":" in other) for other in [*groups[-1], port])
        if size > MULTIPORT_SIZE:
            groups.append([])
        groups[-1].append(port)
    return [f"-m multiport --dports {','.join(group)}" for group in groups]


def _protocol(rule: Rule, family: Family) -> str:
    if rule.protocol is None:
        return ""
    return "-p ipv6-icmp" if rule.protocol == "icmp" and family == "ipv6" else f"-p {rule.protocol}"


def _icmp_type(rule: Rule, family: Family) -> str:
    if rule.icmp_type is None:
        return ""
    number = ICMP_TYPES[family][rule.icmp_type]
    return f"-m icmp --icmp-type {number}" if family == "ipv4" else f"-m icmp6 --icmpv6-type {number}"


def _conntrack(rule: Rule, target: _Match) -> str:
    states = ",".join(state.upper() for state in STATES if state in rule.state)
    options = [f"--ctstate {states}" if states else "", target.original]
    text = " ".join(option for option in options if option)
    return f"-m conntrack {text}" if text else ""


def _limit(limit: RateLimit) -> str:
    burst = "" if limit.burst == RateLimit.model_fields["burst"].default else f" --limit-burst {limit.burst}"
    return f"-m limit --limit {limit.packets}/{UNITS[limit.per]}{burst}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _verdict(rule: Rule, family: Family) -> str:
    if rule.action == "reject":
        return f"-j REJECT --reject-with {REJECT_WITH[family][rule.reject_with]}"
    return {"accept": "-j RETURN", "drop": "-j DROP"}[rule.action]
