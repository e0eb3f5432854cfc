"""From network policies in the config to Calico's own, and which of them cut the proxy from the notebook.

Pure. Policies become GlobalNetworkPolicies and not NetworkPolicies: the Docker driver's endpoints are all in
one namespace, so a policy of that namespace would select the same ones, and its rules could name no
GlobalNetworkSet, which is what stands for a host.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import yaml

from components.calico import selector
from components.calico.policy import Place, Policy, Rule
from components.shared.policy_values import PolicyError, contains_port, is_name, parse_network

SERVICE_LABEL = "calico-lab.service"
"""Label of a service's endpoint; its value is the service's name in the config."""
HOST_LABEL = "calico-lab.host"
"""Label of the GlobalNetworkSet with a host's addresses; its value is the host's name."""
PROXY = "proxy"
SECTION = "network.policies"


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs twice twice, as a person would, and not as a reference to the first."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - the base's signature
        return True


@dataclass(frozen=True)
class Names:
    """What names in network policies stand for."""

    services: Sequence[str]
    """The services on the network, as the config calls them."""
    hosts: Sequence[str]
    """The lab's hosts."""
    proxy: str
    """The host of the proxy."""
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Addresses by the name of who is no host of the lab: the visitor, the operator."""

    def __str__(self) -> str:
        return ", ".join([*self.services, PROXY, *self.hosts, *self.others])


@dataclass(frozen=True)
class Connection:
    """The first packet of a connection to an endpoint."""

    labels: selector.Labels
    """Those of the endpoint."""
    source_labels: selector.Labels
    source: Sequence[IPv4Network]
    """Where it comes from: each of these is possible, and somewhere in it."""
    destination: IPv4Network
    protocol: str
    port: int


def selected_service(name: str) -> str:
    """The selector of a service's endpoint."""
    return f"{SERVICE_LABEL} == '{name}'"


def selected_host(name: str) -> str:
    """The selector of a host's addresses."""
    return f"{HOST_LABEL} == '{name}'"


def render_policies(policies: Mapping[str, Policy], names: Names) -> dict[str, str]:
    """Render the enabled policies as `calicoctl apply` takes them, by name.

    Raises:
        PolicyError: A name in them, enabled or not, stands for nothing.
    """
    if problems := [
        problem for name, policy in policies.items() for problem in _unknown(name, policy, names)
    ]:
        raise PolicyError(problems)
    return {name: _document(name, policy, names) for name, policy in policies.items() if policy.enabled}


def cut_off(policies: Mapping[str, Policy], names: Names, connection: Connection, purpose: str) -> list[str]:
    """Say which enabled policies cut a connection that the lab needs, though they were not told to.

    Policies are read as Felix reads them: by rising order, then by name; the first rule that decides does;
    where none does and a policy has selected the endpoint, the packet is dropped.
    """
    read = [
        (name, policy)
        for name, policy in sorted(policies.items(), key=lambda item: (item[1].order, item[0]))
        if policy.enabled
        and policy.ingress is not None
        and selector.parse(_endpoints(policy.applies_to, names))(connection.labels)
    ]
    for name, policy in read:
        for index, rule in enumerate(policy.ingress or ()):
            path = f"{SECTION}.{name}.ingress[{index}]"
            if rule.action == "deny" and _matches(rule, names, connection, surely=False):
                return [] if policy.allow_lockout else [_cut(path, purpose)]
            if rule.action in ("allow", "pass") and _matches(rule, names, connection, surely=True):
                return []
    if not read or any(policy.allow_lockout for _, policy in read):
        return []
    return [_cut(f"{SECTION}.{read[-1][0]}.ingress", purpose)]


def _cut(path: str, purpose: str) -> str:
    return (
        f"{path}: cuts {purpose}. Allow it in an earlier rule, or set allowLockout: true on the policy to "
        "apply it all the same"
    )


def _unknown(name: str, policy: Policy, names: Names) -> Iterator[str]:
    path = f"{SECTION}.{name}"
    if is_name(policy.applies_to) and policy.applies_to not in names.services:
        yield (
            f"{path}.appliesTo: {policy.applies_to!r}: is not a service on the network; they are "
            f"{', '.join(names.services)}; others are chosen by a selector such as role == 'web'"
        )
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        for index, rule in enumerate(rules or ()):
            for side, places in (("source", rule.source), ("destination", rule.destination)):
                for place in places:
                    if is_name(place) and place not in (*names.services, PROXY, *names.hosts, *names.others):
                        yield (
                            f"{path}.{direction}[{index}].{side}: {place!r}: is not known; names are {names}"
                        )


def _document(name: str, policy: Policy, names: Names) -> str:
    spec: dict[str, Any] = {
        "order": policy.order,
        "selector": _endpoints(policy.applies_to, names),
        "types": [],
    }
    for direction, rules in (("Ingress", policy.ingress), ("Egress", policy.egress)):
        if rules is not None:
            spec["types"].append(direction)
            spec[direction.lower()] = [entry for rule in rules for entry in _rules(rule, names)]
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=1000)


def _endpoints(applies_to: str, names: Names) -> str:
    return selected_service(applies_to) if applies_to in names.services else applies_to


def _rules(rule: Rule, names: Names) -> Iterator[dict[str, Any]]:
    """Calico's rules for one of ours: in one of Calico's, a side's addresses and its selector must match."""
    for source in _sides(rule.source, names):
        for destination in _sides(rule.destination, names):
            entry: dict[str, Any] = {"action": rule.action.title()}
            if rule.protocol:
                entry["protocol"] = rule.protocol.upper()
            if source:
                entry["source"] = source
            ports = {"ports": [_port(port) for port in rule.ports]} if rule.ports else {}
            if destination or ports:
                entry["destination"] = {**destination, **ports}
            yield entry


def _port(port: str) -> int | str:
    return port.replace("-", ":") if "-" in port else int(port)


def _sides(places: Sequence[Place], names: Names) -> list[dict[str, Any]]:
    networks = [str(network) for place in places for network in _networks(place, names)]
    selectors = [text for place in places if (text := _selector(place, names))]
    sides: list[dict[str, Any]] = []
    if networks:
        sides.append({"nets": networks})
    if selectors:
        one = selectors[0] if len(selectors) == 1 else " || ".join(f"({text})" for text in selectors)
        sides.append({"selector": one})
    return sides or [{}]


def _networks(place: Place, names: Names) -> list[IPv4Network]:
    if is_name(place):
        return [IPv4Network(address) for address in names.others.get(place, ())]
    network = parse_network(place)
    return [network] if isinstance(network, IPv4Network) else []


def _selector(place: Place, names: Names) -> str | None:
    """The selector that a place stands for; None where it stands for addresses."""
    if not is_name(place):
        return None if parse_network(place) else place
    if place in names.services:
        return selected_service(place)
    if place == PROXY:
        return selected_host(names.proxy)
    return selected_host(place) if place in names.hosts else None


def _matches(rule: Rule, names: Names, connection: Connection, *, surely: bool) -> bool:
    """Whether a rule matches a connection: surely, or possibly."""
    if rule.protocol not in (None, connection.protocol):
        return False
    if rule.ports and not any(contains_port(ports, connection.port) for ports in rule.ports):
        return False
    every = all if surely else any
    return every(
        _among(rule.source, names, connection.source_labels, source, surely=surely)
        for source in connection.source
    ) and _among(rule.destination, names, connection.labels, connection.destination, surely=surely)


def _among(
    places: Sequence[Place], names: Names, labels: selector.Labels, network: IPv4Network, *, surely: bool
) -> bool:
    if not places:
        return True
    for place in places:
        text = _selector(place, names)
        if text and selector.parse(text)(labels):
            return True
        for known in _networks(place, names):
            if network.subnet_of(known) or (not surely and network.overlaps(known)):
                return True
    return False
