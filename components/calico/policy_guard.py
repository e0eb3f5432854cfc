"""Finds network policies that block a connection which the lab needs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from components.calico import selector
from components.calico.policy_config import Entity, Policy, Rule
from components.calico.policy_rendering import (
    SECTION,
    Names,
    endpoint_selector,
    entity_networks,
    entity_selector,
)
from components.shared.policy_values import contains_port


@dataclass(frozen=True)
class Connection:
    """A new connection to an endpoint."""

    labels: selector.Labels
    """The endpoint's labels."""
    source_labels: selector.Labels
    source: Sequence[IPv4Network]
    """Candidate source networks; the source address is in one of them."""
    destination: IPv4Network
    protocol: str
    port: int


def guard_connection(
    policies: Mapping[str, Policy], names: Names, connection: Connection, purpose: str
) -> list[str]:
    """Check that the enabled policies allow a connection.

    Policies are evaluated as in Felix: by rising order, then by name. The first matching rule with an action
    other than `log` decides. A packet that no rule matches is dropped if a policy selects the endpoint.

    Args:
        policies: The policies by name.
        names: What their names stand for.
        connection: The connection.
        purpose: What it is for, as in "cuts <purpose>".

    Returns:
        A sentence about the rule or the policy that blocks it, if one does and has no `allowLockout`.
    """
    selecting = [
        (name, policy)
        for name, policy in sorted(policies.items(), key=lambda item: (item[1].order, item[0]))
        if policy.enabled
        and policy.ingress is not None
        and selector.parse(endpoint_selector(policy.applies_to, names))(connection.labels)
    ]
    for name, policy in selecting:
        for index, rule in enumerate(policy.ingress or ()):
            path = f"{SECTION}.{name}.ingress[{index}]"
            if rule.action == "deny" and _matches(rule, names, connection, certainly=False):
                return [] if policy.allow_lockout else [_problem(path, purpose)]
            if rule.action in ("allow", "pass") and _matches(rule, names, connection, certainly=True):
                return []
    if not selecting or any(policy.allow_lockout for _, policy in selecting):
        return []
    return [_problem(f"{SECTION}.{selecting[-1][0]}.ingress", purpose)]


def _problem(path: str, purpose: str) -> str:
    return (
        f"{path}: cuts {purpose}. Allow it in an earlier rule, or set allowLockout: true on the policy to "
        "apply it anyway"
    )


def _matches(rule: Rule, names: Names, connection: Connection, *, certainly: bool) -> bool:
    """Whether a rule matches a connection from every candidate source (certainly) or from some (possibly)."""
    if rule.protocol not in (None, connection.protocol):
        return False
    if rule.ports and not any(contains_port(ports, connection.port) for ports in rule.ports):
        return False
    quantifier = all if certainly else any
    return quantifier(
        _matches_entities(rule.source, names, connection.source_labels, source, certainly=certainly)
        for source in connection.source
    ) and _matches_entities(
        rule.destination, names, connection.labels, connection.destination, certainly=certainly
    )


def _matches_entities(
    entities: Sequence[Entity],
    names: Names,
    labels: selector.Labels,
    network: IPv4Network,
    *,
    certainly: bool,
) -> bool:
    if not entities:
        return True
    for entity in entities:
        text = entity_selector(entity, names)
        if text and selector.parse(text)(labels):
            return True
        for known in entity_networks(entity, names):
            if network.subnet_of(known) or (not certainly and network.overlaps(known)):
                return True
    return False
