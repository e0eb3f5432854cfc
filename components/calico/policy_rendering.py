"""Renders network policies of the config as Calico's GlobalNetworkPolicies.

Pure. GlobalNetworkPolicy is used and not NetworkPolicy, because the Docker driver's endpoints are all in one
namespace: a policy of that namespace would select the same endpoints, and its rules could not refer to the
GlobalNetworkSets that represent the hosts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import yaml

from components.calico.policy_config import Entity, Policy, Rule
from components.shared.policy_values import PolicyError, is_name, parse_network

SERVICE_LABEL = "calico-lab.service"
"""Label of a service's endpoint; its value is the service's name in the config."""
HOST_LABEL = "calico-lab.host"
"""Label of the GlobalNetworkSet with a host's addresses; its value is the host's name."""
PROXY = "proxy"
SECTION = "network.policies"


class _NoAliases(yaml.SafeDumper):
    """Writes equal values each time in full, and not as YAML aliases, so that a preview can be read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - the base's signature
        return True


def to_yaml(document: Mapping[str, Any]) -> str:
    """Format a resource of Calico as YAML, the keys in their order."""
    return yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=1000)


@dataclass(frozen=True)
class Names:
    """The names that network policies can use."""

    services: Sequence[str]
    """The services on the network, as the config calls them."""
    hosts: Sequence[str]
    """The lab's hosts."""
    proxies: Sequence[str]
    """The hosts that run a proxy."""
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """IPv4 addresses by name, for what is no host of the lab: the visitor, the operator."""

    def __str__(self) -> str:
        return ", ".join([*self.services, PROXY, *self.hosts, *self.others])


def selected_service(name: str) -> str:
    """The selector of a service's endpoint."""
    return f"{SERVICE_LABEL} == '{name}'"


def selected_host(name: str) -> str:
    """The selector of a host's GlobalNetworkSet."""
    return f"{HOST_LABEL} == '{name}'"


def endpoint_selector(applies_to: str, names: Names) -> str:
    """The selector of the endpoints that a policy applies to."""
    return selected_service(applies_to) if applies_to in names.services else applies_to


def entity_selector(entity: Entity, names: Names) -> str | None:
    """The selector of a source or destination; None if it is one or several addresses."""
    if not is_name(entity):
        return None if parse_network(entity) else entity
    if entity in names.services:
        return selected_service(entity)
    if entity == PROXY:
        return " || ".join(map(selected_host, names.proxies))
    return selected_host(entity) if entity in names.hosts else None


def entity_networks(entity: Entity, names: Names) -> list[IPv4Network]:
    """The networks of a source or destination; empty if it is a selector."""
    if is_name(entity):
        return [IPv4Network(address) for address in names.others.get(entity, ())]
    network = parse_network(entity)
    return [network] if isinstance(network, IPv4Network) else []


def render_policies(policies: Mapping[str, Policy], names: Names) -> dict[str, str]:
    """Render the enabled policies as YAML for `calicoctl apply`, by name.

    Raises:
        PolicyError: A policy, enabled or not, has an unknown name.
    """
    if problems := [
        problem for name, policy in policies.items() for problem in _unknown_names(name, policy, names)
    ]:
        raise PolicyError(problems)
    return {name: _document(name, policy, names) for name, policy in policies.items() if policy.enabled}


def _unknown_names(name: str, policy: Policy, names: Names) -> Iterator[str]:
    path = f"{SECTION}.{name}"
    if is_name(policy.applies_to) and policy.applies_to not in names.services:
        yield (
            f"{path}.appliesTo: {policy.applies_to!r}: is not a service on the network; they are "
            f"{', '.join(names.services)}; others are chosen by a selector such as role == 'web'"
        )
    known = (*names.services, PROXY, *names.hosts, *names.others)
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        for index, rule in enumerate(rules or ()):
            for side, entities in (("source", rule.source), ("destination", rule.destination)):
                for entity in entities:
                    if is_name(entity) and entity not in known:
                        yield (
                            f"{path}.{direction}[{index}].{side}: {entity!r}: is not known; names are {names}"
                        )


def _document(name: str, policy: Policy, names: Names) -> str:
    spec: dict[str, Any] = {
        "order": policy.order,
        "selector": endpoint_selector(policy.applies_to, names),
        "types": [],
    }
    for direction, rules in (("Ingress", policy.ingress), ("Egress", policy.egress)):
        if rules is not None:
            spec["types"].append(direction)
            spec[direction.lower()] = [entry for rule in rules for entry in _calico_rules(rule, names)]
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
    return to_yaml(document)


def _calico_rules(rule: Rule, names: Names) -> Iterator[dict[str, Any]]:
    """Render one rule as one or several, because a Calico rule with both `nets` and `selector` needs both."""
    for source in _entity_rules(rule.source, names):
        for destination in _entity_rules(rule.destination, names):
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


def _entity_rules(entities: Sequence[Entity], names: Names) -> list[dict[str, Any]]:
    networks = [str(network) for entity in entities for network in entity_networks(entity, names)]
    selectors = [text for entity in entities if (text := entity_selector(entity, names))]
    rules: list[dict[str, Any]] = []
    if networks:
        rules.append({"nets": networks})
    if selectors:
        one = selectors[0] if len(selectors) == 1 else " || ".join(f"({text})" for text in selectors)
        rules.append({"selector": one})
    return rules or [{}]
