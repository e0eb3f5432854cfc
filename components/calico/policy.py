"""The language of network policies: who may reach which containers, as it is written in the config.

It is Calico's GlobalNetworkPolicy with the lab's own names in it. This module owes the syntax alone: every
value that it accepts is well-formed. What a name stands for is the part of `policies.py`.
"""

import re
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from components.calico import selector
from components.shared.section import Section, Whole

PORT_PROTOCOLS = ("tcp", "udp", "sctp")
NAME = re.compile(r"[a-z][A-Za-z0-9-]{0,61}")


def is_name(value: str) -> bool:
    """Whether a place is written as a name: of a service, of a machine, `proxy` or `operator`."""
    return NAME.fullmatch(value) is not None


def parse_network(value: str) -> IPv4Network | None:
    """Read an IPv4 address or CIDR; None where it is something else.

    Raises:
        ValueError: A CIDR with host bits set, which is most often a slip.
    """
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        return None
    address = value.partition("/")[0]
    if network.network_address != IPv4Network(address).network_address:
        raise ValueError(f"has host bits set: write {network} for the network or {address} for one address")
    return network


def _place(value: str) -> str:
    if is_name(value):
        return value
    if network := parse_network(value):
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


def _port_range(value: Any) -> str:  # noqa: ANN401 - what the config file holds, before it is known to be right
    ports = str(value).replace(":", "-").split("-")
    known = not isinstance(value, bool) and all(re.fullmatch(r"[0-9]{1,5}", port) for port in ports)
    numbers = [int(port) for port in ports] if known else []
    if len(numbers) not in (1, 2) or not 1 <= numbers[0] <= numbers[-1] <= 65535:
        raise ValueError('must be a port from 1 to 65535, or a range such as "8000-8100"')
    return "-".join(dict.fromkeys(str(number) for number in numbers))


def _as_list(value: Any) -> Any:  # noqa: ANN401
    return [value] if isinstance(value, str | int) else value


Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[tuple[Place, ...], BeforeValidator(_as_list)]
Endpoints = Annotated[str, AfterValidator(_endpoints)]
PortRange = Annotated[str, BeforeValidator(_port_range)]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]


class Rule(Section):
    """One rule of a policy. A packet matches when all that the rule names is true of it."""

    action: Literal["allow", "deny", "log", "pass"] = Field(
        description="allow and deny decide; log writes to the kernel's log and goes on; pass leaves the "
        "decision to what comes after all policies, and that allows."
    )
    protocol: Literal["tcp", "udp", "sctp", "icmp"] | None = Field(
        None, description="Left out: every protocol."
    )
    ports: Annotated[tuple[PortRange, ...], BeforeValidator(_as_list)] = Field(
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
        if self.ports and self.protocol not in PORT_PROTOCOLS:
            raise ValueError(f"ports need protocol: one of {', '.join(PORT_PROTOCOLS)}")
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
