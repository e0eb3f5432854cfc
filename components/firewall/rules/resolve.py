"""What the names in policies stand for: typed rules become rules about addresses, per host and in order.

Pure. Owes: whatever this module returns has a meaning in each address family that it names, and compiles;
what has none is refused with the path in the config, the value, and what would be accepted. Disabled
policies are checked like the others, so that a slip is found when it is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from components.firewall.rules.config import ICMP_TYPES, Family, FirewallConfig, Policy, Rule
from components.firewall.rules.lab import Lab
from components.shared.policy_values import IpNetwork, PolicyError, is_name

FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
OPERATOR = "operator"
SECTION = "firewall"


def family_of(network: IpNetwork) -> Family:
    """The address family of a network."""
    return "ipv4" if network.version == 4 else "ipv6"


@dataclass(frozen=True)
class Place:
    """The addresses that a source or a destination stands for."""

    networks: tuple[IpNetwork, ...]
    set_name: str | None = None

    def of(self, family: Family) -> tuple[IpNetwork, ...]:
        """The part in one address family."""
        return tuple(network for network in self.networks if family_of(network) == family)


@dataclass(frozen=True)
class ResolvedRule:
    """A rule of a policy whose names have become addresses."""

    policy: str
    number: int
    """Its place in the policy, from 1."""
    rule: Rule
    families: tuple[Family, ...]
    """The families in which it has a meaning; never empty."""
    source: Place | None
    destination: Place | None
    source_mac: str | None

    @property
    def path(self) -> str:
        """Where it stands in the config."""
        return f"{SECTION}.policies.{self.policy}.rules[{self.number - 1}]"


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy whose names have become addresses."""

    name: str
    policy: Policy
    rules: tuple[ResolvedRule, ...]

    @property
    def path(self) -> str:
        """Where it stands in the config."""
        return f"{SECTION}.policies.{self.name}"


def resolve(config: FirewallConfig, lab: Lab) -> dict[str, tuple[ResolvedPolicy, ...]]:
    """Find what each host's active policies say.

    Returns:
        The enabled policies by host, in the order in which they are read; a host without one is left out.

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
    """Collects problems, so that all are reported together."""

    def __init__(self, config: FirewallConfig, lab: Lab) -> None:
        self.lab = lab
        self.problems: list[str] = []
        self.machines = [*lab.hosts, *lab.others]
        self.sets: dict[str, Place] = {}
        for name, members in sorted(config.sets.items()):
            path = f"{SECTION}.sets.{name}"
            if name in self.machines or name == OPERATOR:
                self._problem(path, name, "is the name of a machine or of the operator; choose another")
            networks = {
                network
                for index, member in enumerate(members)
                for network in self._networks(f"{path}[{index}]", member)
            }
            ordered = sorted(networks, key=lambda network: (network.version, network))
            self.sets[name] = Place(tuple(ordered), name)

    def _problem(self, path: str, value: object, problem: str) -> None:
        self.problems.append(f"{path}: {value!r}: {problem}")

    def _networks(self, path: str, value: str) -> tuple[IpNetwork, ...]:
        """The addresses of anything but a set."""
        if not is_name(value):
            return (ip_network(value),)
        if value == OPERATOR:
            return tuple(ip_network(address) for address in self.lab.operator)
        if machine := self.lab.machine(value):
            return (ip_network(machine.address),)
        self._problem(path, value, f"is not known; names are {', '.join([*self.machines, OPERATOR])}")
        return ()

    def _place(self, path: str, value: str | None) -> Place | None:
        if value is None:
            return None
        if value in self.sets:
            return self.sets[value]
        if is_name(value) and value != OPERATOR and self.lab.machine(value) is None:
            known = ", ".join([*self.machines, OPERATOR, *self.sets])
            self._problem(path, value, f"is neither a machine nor a set; names are {known}")
            return None
        return Place(self._networks(path, value))

    def _mac(self, path: str, value: str | None) -> str | None:
        if value is None or not is_name(value):
            return value
        machine = self.lab.machine(value)
        if machine is None:
            self._problem(path, value, f"is not a machine of the lab; they are {', '.join(self.machines)}")
            return None
        if machine.mac is None:
            self._problem(path, value, "its MAC address is not known here: write the address itself")
        return machine.mac

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
        source = self._place(f"{path}.source", rule.source)
        destination = self._place(f"{path}.destination", rule.destination)
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
        self, path: str, rule: Rule, source: Place | None, destination: Place | None
    ) -> tuple[Family, ...]:
        """The families in which each part of a rule has a meaning."""
        parts = {
            "family": {family for family in FAMILIES if rule.family in (None, family)},
            "source": {family for family in FAMILIES if source is None or source.of(family)},
            "destination": {family for family in FAMILIES if destination is None or destination.of(family)},
            "icmpType": {family for family in FAMILIES if rule.icmp_type in (None, *ICMP_TYPES[family])},
        }
        families = tuple(family for family in FAMILIES if all(family in part for part in parts.values()))
        if not families and not self.problems:
            said = "; ".join(_in_families(key, part) for key, part in parts.items() if len(part) < 2)
            self.problems.append(f"{path}: has no meaning in either address family: {said}")
        return families


def _in_families(key: str, families: set[Family]) -> str:
    spelled: Iterator[str] = ({"ipv4": "IPv4", "ipv6": "IPv6"}[family] for family in sorted(families))
    return f"{key} is for {' and '.join(spelled) or 'none'}"
