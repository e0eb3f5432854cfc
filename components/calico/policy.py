"""The language of network policies: who may reach which containers, as it is written in the config.

It is Calico's GlobalNetworkPolicy with the lab's own names in it. This module owes the syntax alone: every
value that it accepts is well-formed. What a name stands for is the part of `policies.py`.
"""

from ipaddress import IPv4Network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.calico import selector
from components.shared.policy_values import ONE_OR_LIST, Ports, is_name, parse_network, require_port_protocol
from components.shared.section import Section, Whole


def _place(value: str) -> str:
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


def _endpoints(value: str) -> str:
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


Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[tuple[Place, ...], ONE_OR_LIST]
Endpoints = Annotated[str, AfterValidator(_endpoints)]


class Rule(Section):
    """One rule of a policy. A packet matches when all that the rule names is true of it."""

    action: Literal["allow", "deny", "log", "pass"] = Field(
        description="allow and deny decide; log writes to the kernel's log and goes on; pass leaves the "
        "decision to what comes after all policies, and that allows."
    )
    protocol: Literal["tcp", "udp", "sctp", "icmp"] | None = Field(
        None, description="Left out: every protocol."
    )
    ports: Ports = Field(
        (),
        description='Destination ports: a number, a range such as "8000-8100", or a list. Needs a protocol.',
    )
    source: Places = Field(
        (),
        description="Where it comes from, one or a list: a service (notebook, sshBox), a host, `proxy` "
        "(its host), `visitor`, `operator`, an address, a CIDR, or a selector of containers such as `role "
        "== 'web'`.",
    )
    destination: Places = Field((), description="Where it goes to, written like source.")

    @model_validator(mode="after")
    def _ports_need_a_protocol(self) -> Self:
        require_port_protocol(self.ports, self.protocol)
        return self


class Policy(Section):
    """What may come to some containers, and what may leave them."""

    enabled: bool = Field(True, description="The switch.")
    description: str = Field("", description="What the policy is for; free text.")
    applies_to: Endpoints = Field(
        description="The containers that it is for: a service (notebook, sshBox), or a selector of their "
        "labels."
    )
    order: Whole = Field(
        100,
        ge=0,
        le=10_000,
        description="Policies are read by rising order, then by name; the first rule decides.",
    )
    ingress: tuple[Rule, ...] | None = Field(
        None,
        description="What may come. What no rule of any policy allows is denied, so an empty list denies "
        "all; left out: the policy says nothing about it.",
    )
    egress: tuple[Rule, ...] | None = Field(None, description="What may leave, written like ingress.")
    allow_lockout: bool = Field(
        False,
        description="Applied even where it cuts the proxy from the notebook, which is refused otherwise.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.ingress is None and self.egress is None:
            raise ValueError("says nothing: give it ingress or egress; an empty list ([]) denies everything")
        return self
