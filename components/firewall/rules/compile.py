"""From resolved policies to one `iptables-restore --noflush` document per address family.

Pure and deterministic: the same policies give the same bytes. Rules are kept by chain and policy until the
last moment, because that is how a person reads a change of them. They stand in two chains of the project's
own: one for traffic to the host, which INPUT jumps to, and one for traffic to container ports that Docker
publishes, which DOCKER-USER jumps to. Every rule carries a comment `<policy>/<number>`, by which counters,
the kernel's trace and `lab why` find the way back to the config.

`accept` is RETURN: the packet leaves the project's chain, and whatever else is on the host, Calico's and
Docker's rules included, still has its say. So the project only ever takes away: the order of its jump against
those that other programs insert makes no difference, and removing its rules locks nobody out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from components.firewall.rules.config import ICMP_TYPES, Family, RateLimit, Reject, Rule
from components.firewall.rules.resolve import FAMILIES, Place, ResolvedPolicy, ResolvedRule

HOST_CHAIN = "CALICO-LAB-INPUT"
PUBLISHED_CHAIN = "CALICO-LAB-PUBLISHED"
CHAINS = {"host": HOST_CHAIN, "published": PUBLISHED_CHAIN}

# What every chain begins with. Without the first line, a host that talks to itself would be cut; the second
# keeps the operator's session, and makes a rule one about new connections.
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
LOOPBACK = "-i lo -j RETURN"
# Of what must not be dropped (RFC 4890, 4.4.1), what a host acts on: queries of multicast listeners (switches
# forget who does not answer), router advertisement, neighbour solicitation and advertisement.
NEIGHBOURS = (130, 134, 135, 136)
# The queries of multicast listeners in IPv4 (RFC 3376). By number: iptables knows the name from
# /etc/protocols alone, which not every host has.
IGMP = "-p 2 -j RETURN"
# A host whose lease is not renewed loses its address. What a client sends goes to a multicast or broadcast
# address, so connection tracking does not recognise the answers. In IPv4 they come from port 67 (RFC 2131,
# 4.1); in IPv6 from any port to the client's link-local address (RFC 8415, 7.2 and 18.2).
DHCP: dict[Family, str] = {
    "ipv4": "-p udp -m udp --sport 67 --dport 68 -j RETURN",
    "ipv6": "-d fe80::/10 -p udp -m udp --dport 546 -j RETURN",
}
# DOCKER-USER sees all that is routed, Calico's traffic too; what came to a published port is translated.
# Connection tracking translates what it has an entry for: an invalid or untracked packet to a published port
# goes to the host itself, and is judged there.
NOT_PUBLISHED = "-m conntrack ! --ctstate DNAT -j RETURN"
PREAMBLES: dict[tuple[str, Family], tuple[str, ...]] = {
    (HOST_CHAIN, "ipv4"): (LOOPBACK, ESTABLISHED, IGMP, DHCP["ipv4"]),
    (HOST_CHAIN, "ipv6"): (
        LOOPBACK,
        ESTABLISHED,
        *(f"-p ipv6-icmp -m icmp6 --icmpv6-type {number} -j RETURN" for number in NEIGHBOURS),
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
# A multiport match holds 15 ports, and a range counts as two (iptables-extensions(8)).
MULTIPORT_SIZE = 15
# The length that the kernel takes for a log line's prefix (iptables-extensions(8)).
LOG_PREFIX_SIZE = 29


# The sections of a chain that belong to no policy; a policy's name has no parentheses.
ALWAYS = "(always)"
DEFAULT = "(default)"

Chains = dict[str, dict[str, list[str]]]
"""Rules by chain and section: `ALWAYS`, each policy by its name, and `DEFAULT`."""


@dataclass(frozen=True)
class Compiled:
    """What one host loads."""

    policies: list[str]
    """The active policies, in the order in which they are read."""
    ipv4: Chains
    """The rules of iptables; empty where no policy has a rule in IPv4."""
    ipv6: Chains
    """The rules of ip6tables; empty where no policy has a rule in IPv6."""
    sets: dict[str, str]
    """The members of each ipset, a line each, by `<set>/<family>`."""


def compile_policies(policies: Sequence[ResolvedPolicy]) -> Compiled:
    """Compile the active policies of one host, in the order in which they are read."""
    names = [policy.name for policy in policies]
    families = {family: _chains(family, policies) for family in FAMILIES}
    rules = [rule for policy in policies for rule in policy.rules]
    places = [place for rule in rules for place in (rule.source, rule.destination)]
    sets = {
        _set_key(place, family): _set_members(place, family)
        for place in places
        if place is not None and place.set_name
        for family in FAMILIES
        if f" {_set_in_kernel(place, family)} " in restore_document(families[family], names)
    }
    return Compiled(names, families["ipv4"], families["ipv6"], dict(sorted(sets.items())))


def restore_document(chains: Chains, policies: Sequence[str]) -> str:
    """Render rules for `iptables-restore --noflush`, which replaces the chains that it declares.

    Args:
        chains: The rules of one family.
        policies: The names of the policies, in the order in which they are read.
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
    """The kernel's name of a set, at most 31 characters.

    It depends on the members, so that a document and the sets that it was compiled with belong together, and
    both can be changed, and undone, in one step.

    Args:
        key: `<set>/<family>`.
        members: The members, a line each.
    """
    name, family = key.split("/")
    digest = hashlib.sha256(members.encode()).hexdigest()[:8]
    return f"cl{4 if family == 'ipv4' else 6}-{name}-{digest}"


def _set_key(place: Place, family: Family) -> str:
    return f"{place.set_name}/{family}"


def _set_members(place: Place, family: Family) -> str:
    return "".join(f"{network}\n" for network in place.of(family))


def _set_in_kernel(place: Place, family: Family) -> str:
    return ipset_name(_set_key(place, family), _set_members(place, family))


def _chains(family: Family, policies: Sequence[ResolvedPolicy]) -> Chains:
    chains: Chains = {}
    for part, chain in CHAINS.items():
        here = [policy for policy in policies if policy.policy.applies_to in (part, "both")]
        sections = {
            policy.name: [line for rule in policy.rules for line in _rule(family, part, rule)]
            for policy in here
        }
        dropping = [policy.name for policy in here if policy.policy.default == "drop"]
        # Once is enough; it is the first in the order that the evaluator names as well.
        sections[DEFAULT] = [f"{_comment(f'{name}/default')} -j DROP" for name in dropping[:1]]
        filled = {section: lines for section, lines in sections.items() if lines}
        if filled:
            chains[chain] = {ALWAYS: list(PREAMBLES[chain, family]), **filled}
    return chains


def _rule(family: Family, part: str, resolved: ResolvedRule) -> Iterator[str]:
    """The lines of one rule: one for each combination of what a single line cannot list."""
    rule = resolved.rule
    if family not in resolved.families or (part == "published" and rule.protocol == "icmp"):
        return
    label = f"{resolved.policy}/{resolved.number}"
    comment = _comment(f"{label} {rule.comment}" if rule.comment else label)
    for source, target in product(_side("s", resolved.source, family), _targets(part, resolved, family)):
        # The order of iptables-save, so that a document reads like what the kernel lists.
        parts = [
            source.address,
            target.address,
            f"-i {rule.interface}" if rule.interface else "",
            _protocol(rule, family),
            f"-m mac --mac-source {resolved.source_mac}" if resolved.source_mac else "",
            target.ports,
            _icmp_type(rule, family),
            _conntrack(rule, target),
            source.match,
            target.match,
        ]
        matches = [part for part in parts if part]
        if rule.log:
            prefix = f'"{label[: LOG_PREFIX_SIZE - 1]} "'
            yield " ".join([*matches, "-m limit --limit 5/sec", comment, f"-j LOG --log-prefix {prefix}"])
        limit = [_limit(rule.rate_limit)] if rule.rate_limit else []
        yield " ".join([*matches, *limit, comment, _verdict(rule, family)])


@dataclass(frozen=True)
class _Side:
    """What a line says of one end of a packet's way."""

    address: str = ""
    match: str = ""
    ports: str = ""
    original: str = ""
    """Options of the conntrack match: what the packet was sent to, before Docker translated it."""


def _side(option: str, place: Place | None, family: Family) -> list[_Side]:
    if place is None:
        return [_Side()]
    if place.set_name:
        direction = {"s": "src", "d": "dst"}[option]
        return [_Side(match=f"-m set --match-set {_set_in_kernel(place, family)} {direction}")]
    return [
        _Side(address=f"-{option} {network}" if network.prefixlen else "") for network in place.of(family)
    ]


def _targets(part: str, resolved: ResolvedRule, family: Family) -> list[_Side]:
    """Destination and ports: of the packet itself, or where Docker translates it, of what it was before."""
    if part == "host":
        sides = _side("d", resolved.destination, family)
        ports = _port_matches(resolved.rule)
        return [replace(side, ports=port) for side, port in product(sides, ports)]
    networks = resolved.destination.of(family) if resolved.destination else ()
    addresses = [f"--ctorigdst {network}" for network in networks if network.prefixlen] or [""]
    ranges = [f"--ctorigdstport {port.replace('-', ':')}" for port in resolved.rule.ports] or [""]
    return [_Side(original=f"{address} {port}".strip()) for address, port in product(addresses, ranges)]


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


def _conntrack(rule: Rule, target: _Side) -> str:
    states = ",".join(state.upper() for state in STATES if state in rule.state)
    options = [f"--ctstate {states}" if states else "", target.original]
    said = " ".join(option for option in options if option)
    return f"-m conntrack {said}" if said else ""


def _limit(limit: RateLimit) -> str:
    burst = "" if limit.burst == RateLimit.model_fields["burst"].default else f" --limit-burst {limit.burst}"
    return f"-m limit --limit {limit.packets}/{UNITS[limit.per]}{burst}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _verdict(rule: Rule, family: Family) -> str:
    if rule.action == "reject":
        return f"-j REJECT --reject-with {REJECT_WITH[family][rule.reject_with]}"
    return {"accept": "-j RETURN", "drop": "-j DROP"}[rule.action]
