"""Resolves the names in policies to addresses, for each host, in the order of evaluation.

Pure. Every rule that this module returns is valid in each of its address families, and compiles. A rule that
is valid in neither is refused, with its path in the config, the value, and what is accepted. Disabled
policies are checked too, so that a mistake is found when it is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from components.firewall.rules.config import ICMP_TYPES, Family, FirewallConfig, Policy, Rule
from components.firewall.rules.lab_hosts import LabHosts
from components.shared.policy_values import IpNetwork, PolicyError, is_name

FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
OPERATOR = "operator"
SECTION = "firewall"


def family_of(network: IpNetwork) -> Family:
    """The address family of a network."""
    return "ipv4" if network.version == 4 else "ipv6"


@dataclass(frozen=True)
class Addresses:
    """The addresses of a source or a destination."""

    networks: tuple[IpNetwork, ...]
    set_name: str | None = None
    """The name of the set that they are from, if any."""

    def of(self, family: Family) -> tuple[IpNetwork, ...]:
        """The networks of one address family."""
        return tuple(network for network in self.networks if family_of(network) == family)


@dataclass(frozen=True)
class ResolvedRule:
    """A rule with addresses in place of names."""

    policy: str
    number: int
    """Its number in the policy, from 1."""
    rule: Rule
    families: tuple[Family, ...]
    """The address families in which it is valid; never empty."""
    source: Addresses | None
    destination: Addresses | None
    source_mac: str | None

    @property
    def path(self) -> str:
        """Its path in the config."""
        return f"{SECTION}.policies.{self.policy}.rules[{self.number - 1}]"


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy with addresses in place of names."""

    name: str
    policy: Policy
    rules: tuple[ResolvedRule, ...]

    @property
    def path(self) -> str:
        """Its path in the config."""
        return f"{SECTION}.policies.{self.name}"


def resolve(config: FirewallConfig, lab: LabHosts) -> dict[str, tuple[ResolvedPolicy, ...]]:
    """Resolve the policies.

    Returns:
        The enabled policies by host, in the order of evaluation; without the hosts that have none.

    Raises:
        PolicyError: With every problem of the section.
    """
    resolver = _Resolver(config, lab)
    policies = [resolver.policy(name, policy) for name, policy in sorted(config.policies.items())]
    if resolver.problems:
        raise PolicyError(resolver.problems)
    active = sorted(
        (policy for policy in policies if policy.policy.enabled),
        key=lambda policy: (policy.policy.order, policy.name),
    )
    by_host = {
        host: tuple(
            policy for policy in active if policy.policy.hosts == "all" or host in policy.policy.hosts
        )
        for host in lab.hosts
    }
    return {host: policies for host, policies in by_host.items() if policies}


class _Resolver:
    """Resolves one section, and collects its problems to report all of them together."""

    def __init__(self, config: FirewallConfig, lab: LabHosts) -> None:
        self.lab = lab
        self.problems: list[str] = []
        self.host_names = [*lab.hosts, *lab.others]
        self.sets: dict[str, Addresses] = {}
        for name, members in sorted(config.sets.items()):
            path = f"{SECTION}.sets.{name}"
            if name in self.host_names or name == OPERATOR:
                self._problem(path, name, "is the name of a host or of the operator; choose another")
            networks = {
                network
                for index, member in enumerate(members)
                for network in self._networks(f"{path}[{index}]", member)
            }
            ordered = sorted(networks, key=lambda network: (network.version, network))
            self.sets[name] = Addresses(tuple(ordered), name)

    def _problem(self, path: str, value: object, problem: str) -> None:
        self.problems.append(f"{path}: {value!r}: {problem}")

    def _networks(self, path: str, value: str) -> tuple[IpNetwork, ...]:
        """The networks of an address, a CIDR, a host or the operator."""
        if not is_name(value):
            return (ip_network(value),)
        if value == OPERATOR:
            return tuple(ip_network(address) for address in self.lab.operator)
        if host := self.lab.named(value):
            return (ip_network(host.address),)
        self._problem(path, value, f"is not known; names are {', '.join([*self.host_names, OPERATOR])}")
        return ()

    def _addresses(self, path: str, value: str | None) -> Addresses | None:
        if value is None:
            return None
        if value in self.sets:
            return self.sets[value]
        if is_name(value) and value != OPERATOR and self.lab.named(value) is None:
            known = ", ".join([*self.host_names, OPERATOR, *self.sets])
            self._problem(path, value, f"is neither a host nor a set; names are {known}")
            return None
        return Addresses(self._networks(path, value))

    def _mac(self, path: str, value: str | None) -> str | None:
        if value is None or not is_name(value):
            return value
        host = self.lab.named(value)
        if host is None:
            self._problem(path, value, f"is not a host; they are {', '.join(self.host_names)}")
            return None
        if host.mac is None:
            self._problem(path, value, "its MAC address is not known: write the MAC address itself")
        return host.mac

    def policy(self, name: str, policy: Policy) -> ResolvedPolicy:
        path = f"{SECTION}.policies.{name}"
        for index, host in enumerate(() if policy.hosts == "all" else policy.hosts):
            if host not in self.lab.hosts:
                known = ", ".join(self.lab.hosts)
                self._problem(f"{path}.hosts[{index}]", host, f"is not a host of the lab; they are {known}")
        rules = [self._rule(name, number, policy, rule) for number, rule in enumerate(policy.rules, start=1)]
        return ResolvedPolicy(name, policy, tuple(rules))

    def _rule(self, name: str, number: int, policy: Policy, rule: Rule) -> ResolvedRule:
        path = f"{SECTION}.policies.{name}.rules[{number - 1}]"
        source = self._addresses(f"{path}.source", rule.source)
        destination = self._addresses(f"{path}.destination", rule.destination)
        mac = self._mac(f"{path}.sourceMac", rule.source_mac)
        families = self._families(path, rule, source, destination)
        if policy.applies_to == "published" and rule.protocol == "icmp":
            self._problem(
                f"{path}.protocol", "icmp", "is never published; Docker publishes tcp, udp and sctp"
            )
        if policy.applies_to != "host" and destination is not None and destination.set_name:
            self._problem(
                f"{path}.destination",
                destination.set_name,
                "a set cannot be the destination of traffic to published ports: a set is compared with the "
                "container's address, not with the host's; write an address, or appliesTo: host",
            )
        return ResolvedRule(name, number, rule, families, source, destination, mac)

    def _families(
        self, path: str, rule: Rule, source: Addresses | None, destination: Addresses | None
    ) -> tuple[Family, ...]:
        """The address families in which every part of a rule is valid."""
        parts = {
            "family": {family for family in FAMILIES if rule.family in (None, family)},
            "source": {family for family in FAMILIES if source is None or source.of(family)},
            "destination": {family for family in FAMILIES if destination is None or destination.of(family)},
            "icmpType": {family for family in FAMILIES if rule.icmp_type in (None, *ICMP_TYPES[family])},
        }
        families = tuple(family for family in FAMILIES if all(family in part for part in parts.values()))
        if not families and not self.problems:
            parts_text = "; ".join(_in_families(key, part) for key, part in parts.items() if len(part) < 2)
            self.problems.append(f"{path}: is valid in neither address family: {parts_text}")
        return families


def _in_families(key: str, families: set[Family]) -> str:
    names: Iterator[str] = ({"ipv4": "IPv4", "ipv6": "IPv6"}[family] for family in sorted(families))
    return f"{key} is for {' and '.join(names) or 'none'}"
