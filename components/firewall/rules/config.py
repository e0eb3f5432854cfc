"""The config section `firewall`: policies and their rules.

A policy applies to some of the lab's hosts. The first of its rules that matches a packet decides. This module
checks the syntax: every value that it accepts is well-formed and in its canonical spelling. `resolve.py`
resolves names, and finds the address families in which a rule is valid.

Established connections and loopback are accepted before any rule, so no rule applies to them.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from components.hosts.remote import PROJECT
from components.shared.policy_values import (
    ONE_OR_LIST,
    IpNetwork,
    PolicyName,
    Ports,
    is_name,
    parse_network,
    require_port_protocol,
)
from components.shared.section import MAC_ADDRESS, HostName, Section, Whole, expanded

Family = Literal["ipv4", "ipv6"]
IpAddress = IPv4Address | IPv6Address
Protocol = Literal["tcp", "udp", "sctp", "icmp"]
Reject = Literal["port-unreachable", "host-unreachable", "net-unreachable", "admin-prohibited", "tcp-reset"]

# Numbers: the IANA registries "ICMP Type Numbers" and "ICMPv6 'type' Numbers". Names: iptables. The types of
# `ICMPV6_ALWAYS_ACCEPTED` are left out, because no rule applies to them.
ICMP_TYPES: dict[Family, dict[str, int]] = {
    "ipv4": {
        "echo-reply": 0,
        "destination-unreachable": 3,
        "source-quench": 4,
        "redirect": 5,
        "echo-request": 8,
        "router-advertisement": 9,
        "router-solicitation": 10,
        "time-exceeded": 11,
        "parameter-problem": 12,
        "timestamp-request": 13,
        "timestamp-reply": 14,
        "address-mask-request": 17,
        "address-mask-reply": 18,
    },
    "ipv6": {
        "destination-unreachable": 1,
        "packet-too-big": 2,
        "time-exceeded": 3,
        "parameter-problem": 4,
        "echo-request": 128,
        "echo-reply": 129,
        "router-solicitation": 133,
        "redirect": 137,
    },
}
# ICMPv6 types that must not be dropped (RFC 4890, 4.4.1) and that a host processes: multicast listener query
# (switches drop a listener that does not answer), router advertisement, neighbour solicitation and
# advertisement.
ICMPV6_ALWAYS_ACCEPTED = (130, 134, 135, 136)


def _network(value: str) -> IpNetwork:
    if "%" in value:
        raise ValueError("has a zone: name the interface with `interface` instead")
    network = parse_network(value)
    if network is None:
        raise ValueError(
            "must be an address (172.16.6.66, fd00::66), a CIDR (172.16.6.0/24) or a name: "
            "a host of the lab, operator, or one of firewall.sets"
        )
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"is never on the wire: write {network.network_address.ipv4_mapped}")
    return network


def _address_or_name(value: str) -> str:
    if is_name(value):
        return value
    return str(_network(value))


def _mac_or_name(value: str) -> str:
    if MAC_ADDRESS.fullmatch(value.lower()):
        return value.lower()
    if is_name(value):
        return value
    raise ValueError("must be a MAC address such as 02:42:ac:10:06:42, or the name of a host of the lab")


def _address(value: Any) -> IpAddress:  # noqa: ANN401 - any value of the config file
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError("must be an address such as 203.0.113.9 or 2001:db8::9") from None


def _interface(value: str) -> str:
    stem = value.removesuffix("+")
    # The kernel's rule for device names (dev_valid_name), without the characters that iptables needs quoted.
    if not stem or len(value) > 15 or not all(c.isascii() and (c.isalnum() or c in "-_.@") for c in stem):
        raise ValueError("must be the name of an interface, at most 15 characters, such as eth0 or eth+")
    return value


def _printable(value: str) -> str:
    if not value.isprintable() or not value.isascii() or any(c in "\"\\'`$" for c in value):
        raise ValueError("must be printable ASCII without quotes, backslashes, backticks and $")
    return value


AddressOrName = Annotated[str, AfterValidator(_address_or_name)]
MacOrName = Annotated[str, AfterValidator(_mac_or_name)]
Interface = Annotated[str, AfterValidator(_interface)]
Comment = Annotated[str, StringConstraints(max_length=160), AfterValidator(_printable)]
# The name of an ipset has at most 31 characters; the compiler adds a prefix and a hash.
SetName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,14}[a-z0-9])?$")]


# The kernel stores a rate as the time between packets, in units of 0.1 ms (xt_limit.h). Its counter of
# saved-up time holds at least a day (xt_limit.c).
TICKS_PER_SECOND = 10_000
CREDIT_SECONDS = 86_400
SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
# The maximum relative difference between a rate and the one that the kernel stores.
RATE_TOLERANCE = 0.05


class RateLimit(Section):
    """How often a rule matches; packets above the rate go on to the next rule."""

    packets: Whole = Field(ge=1, le=10_000, description="Packets in each unit of time.")
    per: Literal["second", "minute", "hour", "day"] = Field("second", description="The unit of time.")
    burst: Whole = Field(
        5,
        ge=1,
        le=10_000,
        description="Packets that match at once; at most as many as the rate gives in a day.",
    )

    @model_validator(mode="after")
    def _fits_the_kernel(self) -> Self:
        ticks = SECONDS[self.per] * TICKS_PER_SECOND
        stored = ticks // (ticks // self.packets)
        if stored > self.packets * (1 + RATE_TOLERANCE):
            below = ticks // (ticks // self.packets + 1)
            raise ValueError(
                f"packets: {self.packets} per {self.per}: the kernel stores a rate in units of 0.1 ms "
                f"between packets and would accept {stored}; write {below} or {stored}"
            )
        most = CREDIT_SECONDS * self.packets // SECONDS[self.per]
        if self.burst > most:
            raise ValueError(
                f"burst: {self.burst} at {self.packets} per {self.per}: the kernel saves up for at most a "
                f"day; write a burst of at most {most}, or a higher rate"
            )
        return self


class Rule(Section):
    """One rule of a policy. A packet matches if it matches every field that the rule has."""

    action: Literal["accept", "drop", "reject"] = Field(
        description="accept lets the packet pass this firewall; drop is silent; reject answers the sender."
    )
    reject_with: Reject = Field(
        "port-unreachable", description="The answer of a reject; each exists in both address families."
    )
    source: AddressOrName | None = Field(
        None,
        description="The source: an address, a CIDR, a host's name, `operator`, or a named set.",
    )
    destination: AddressOrName | None = Field(
        None, description="The destination, written like source. Left out: every address of the host."
    )
    source_mac: MacOrName | None = Field(
        None,
        description="A sender on the same L2 segment: its MAC address, or a host's name if its MAC is known.",
    )
    interface: Interface | None = Field(
        None, description="The incoming interface; a trailing + stands for any ending."
    )
    protocol: Protocol | None = Field(
        None, description="icmp stands for ICMP in IPv4 and for ICMPv6 in IPv6. Left out: every protocol."
    )
    ports: Ports = Field(
        (),
        description='Destination ports: a number, a range such as "8000-8100", or a list. Needs a protocol.',
    )
    icmp_type: str | None = Field(None, description="An ICMP type by its name, such as echo-request.")
    state: Annotated[tuple[Literal["new", "invalid", "untracked"], ...], ONE_OR_LIST] = Field(
        (), description="States of connection tracking. Established connections never reach a rule."
    )
    rate_limit: RateLimit | None = Field(
        None, description="The highest rate that is accepted; for action accept only."
    )
    log: bool = Field(False, description="Also write a line, at most 5 a second, to the host's kernel log.")
    family: Family | None = Field(
        None,
        description="Restricts the rule to one address family. Left out: every family in which it is valid.",
    )
    comment: Comment | None = Field(
        None,
        description="Part of the rule's iptables comment, after the policy's name and the rule's number.",
    )

    @field_validator("icmp_type")
    @classmethod
    def _known_icmp_type(cls, value: str | None) -> str | None:
        known = sorted({name for names in ICMP_TYPES.values() for name in names})
        if value is not None and value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_port_protocol(self.ports, self.protocol)
        if self.icmp_type and self.protocol != "icmp":
            raise ValueError("icmpType needs protocol: icmp")
        if "reject_with" in self.model_fields_set and self.action != "reject":
            raise ValueError(f"rejectWith is for action: reject, and this action is {self.action}")
        if self.reject_with == "tcp-reset" and self.protocol != "tcp":
            raise ValueError("rejectWith: tcp-reset needs protocol: tcp")
        if self.rate_limit and self.action != "accept":
            raise ValueError(
                "rateLimit is the rate that is accepted, so it needs action: accept; "
                "the next rule gets the other packets"
            )
        return self


class Policy(Section):
    """One policy: its rules, and the hosts that it applies to."""

    enabled: bool = Field(True, description="The switch.")
    description: str = Field("", description="What the policy is for; free text.")
    hosts: Literal["all"] | tuple[HostName, ...] = Field(
        description="The hosts that the policy applies to: a list of their names, or all."
    )
    applies_to: Literal["host", "published", "both"] = Field(
        "host",
        description="host: traffic to the host itself; published: to container ports that Docker publishes.",
    )
    default: Literal["accept", "drop"] = Field(
        "accept", description="The verdict on packets that no rule of any policy on the host matches."
    )
    order: Whole = Field(
        100, ge=0, le=10_000, description="The policies of a host are read by rising order, then by name."
    )
    rules: tuple[Rule, ...] = Field((), description="The rules; the first that matches decides.")
    allow_lockout: bool = Field(
        False, description="Applies the policy even if the guard refuses it. The rollback timer still runs."
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.rules and self.default == "accept":
            raise ValueError("has no effect: give it rules, or default: drop")
        if self.hosts != "all" and len(set(self.hosts)) != len(self.hosts):
            raise ValueError("hosts: names a host twice")
        if not self.hosts:
            raise ValueError("hosts: names no host; write a list of names, or all")
        return self


def _from_file(value: Any) -> Any:  # noqa: ANN401
    """Read the members of a set from its file, if it has one."""
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"file"} or not isinstance(value["file"], str):
        raise ValueError("must be a list of members, or {file: PATH} of a text that has one on each line")
    path = PROJECT / expanded(Path(value["file"]))
    try:
        lines = _text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    written = {number: line.partition("#")[0].strip() for number, line in enumerate(lines, start=1)}
    return tuple(_line(path, number, text) for number, text in written.items() if text)


def _text(path: Path) -> str:
    # Reading a device or a pipe may block forever.
    if path.is_char_device() or path.is_fifo():
        raise ValueError("is not a file")
    return path.read_text()


def _line(path: Path, number: int, text: str) -> str:
    try:
        return _address_or_name(text)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {text!r}: {error}") from None


def _members(values: Iterable[str]) -> tuple[str, ...]:
    members = tuple(values)
    if not members:
        raise ValueError("a set needs at least one member")
    if any(member.endswith("/0") for member in members):
        raise ValueError("a set must not have every address: leave source or destination out instead")
    return members


SetMembers = Annotated[
    tuple[AddressOrName, ...],
    BeforeValidator(
        _from_file, json_schema_input_type=tuple[AddressOrName, ...] | dict[Literal["file"], str]
    ),
    AfterValidator(_members),
]


class FirewallConfig(Section):
    """The section `calico-lab:firewall`."""

    sets: dict[SetName, SetMembers] = Field(
        default_factory=dict,
        description="Named sets of addresses, CIDRs and hosts; one rule matches a whole set, however large. "
        "`{file: PATH}` reads them from a text file, one per line, with `#` comments: Pulumi accepts a "
        "config of at most 128 KiB.",
    )
    operator: tuple[Annotated[IpAddress, BeforeValidator(_address)], ...] = Field(
        (),
        description="The addresses from which the hosts see the operator. Left out: the controller's own "
        "addresses. Needed behind NAT.",
    )
    undo_seconds: Whole = Field(
        15,
        ge=5,
        le=300,
        description="How long a host waits for the confirmation of a change before it rolls it back.",
    )
    policies: dict[PolicyName, Policy] = Field(
        default_factory=dict, description="The policies, by name; `enabled` switches each."
    )
