"""The config of network policies: who may reach which containers.

The language is Calico's GlobalNetworkPolicy with names of the lab. This module checks the syntax: every value
that it accepts is well-formed. `policy_rendering.py` resolves the names.
"""

from ipaddress import IPv4Network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.calico import selector
from components.shared.policy_values import ONE_OR_LIST, Ports, is_name, parse_network, require_port_protocol
from components.shared.section import Section, Whole


def _entity(value: str) -> str:
    if is_name(value):
        return value
    network = parse_network(value)
    if isinstance(network, IPv4Network):
        return str(network)
    try:
        selector.parse(value)
    except selector.SelectorError as error:
        raise ValueError(
            "must be a name of the lab (notebook, sshBox, proxy, operator, a host), an address "
            f"(172.16.6.66), a CIDR (172.16.6.0/24), or a selector (role == 'web'): {error}"
        ) from None
    return value


def _endpoint_selector(value: str) -> str:
    if is_name(value):
        return value
    try:
        selector.parse(value)
    except selector.SelectorError as error:
        raise ValueError(
            "must be a service (notebook, sshBox) or a selector of containers (role == 'web', all()): "
            f"{error}"
        ) from None
    return value


Entity = Annotated[str, AfterValidator(_entity)]
"""A source or destination, as in Calico's EntityRule: a name, an IPv4 address, a CIDR, or a selector."""
Entities = Annotated[tuple[Entity, ...], ONE_OR_LIST]
EndpointSelector = Annotated[str, AfterValidator(_endpoint_selector)]
"""The name of a service, or a selector."""


class Rule(Section):
    """One rule of a policy. A packet matches if it matches every field that the rule has."""

    action: Literal["allow", "deny", "log", "pass"] = Field(
        description="allow and deny decide; log writes to the kernel log and goes on to the next rule; pass "
        "skips the remaining policies; what comes after them allows."
    )
    protocol: Literal["tcp", "udp", "sctp", "icmp"] | None = Field(
        None, description="Left out: every protocol."
    )
    ports: Ports = Field(
        (),
        description='Destination ports: a number, a range such as "8000-8100", or a list. Needs a protocol.',
    )
    source: Entities = Field(
        (),
        description="The source, one or a list: a service (notebook, sshBox), a host, `proxy` (its host), "
        "`visitor`, `operator`, an address, a CIDR, or a selector of containers such as `role == 'web'`.",
    )
    destination: Entities = Field((), description="The destination, written like source.")

    @model_validator(mode="after")
    def _ports_need_a_protocol(self) -> Self:
        require_port_protocol(self.ports, self.protocol)
        return self


class Policy(Section):
    """What may reach some containers, and what these may reach."""

    enabled: bool = Field(True, description="The switch.")
    description: str = Field("", description="What the policy is for; free text.")
    applies_to: EndpointSelector = Field(
        description="The containers that the policy applies to: a service (notebook, sshBox), or a selector "
        "of their labels."
    )
    order: Whole = Field(
        100,
        ge=0,
        le=10_000,
        description="Policies are read by rising order, then by name; the first rule that matches decides.",
    )
    ingress: tuple[Rule, ...] | None = Field(
        None,
        description="Rules for incoming packets. What no rule of any policy allows is denied, so an empty "
        "list denies everything; left out: the policy does not apply to incoming packets.",
    )
    egress: tuple[Rule, ...] | None = Field(
        None, description="Rules for outgoing packets, written like ingress."
    )
    allow_lockout: bool = Field(
        False,
        description="Applies the policy even if it cuts the proxy from the notebook, which is refused "
        "otherwise.",
    )

    @model_validator(mode="after")
    def _has_a_direction(self) -> Self:
        if self.ingress is None and self.egress is None:
            raise ValueError("has no rules: give it ingress or egress; an empty list ([]) denies everything")
        return self
