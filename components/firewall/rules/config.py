"""The language of the firewall: named policies and their rules, as they are written in the config.

A policy is for some of the lab's hosts, and is read rule by rule: the first that matches a packet decides.
This module owes the syntax alone: every value that it accepts is well-formed and in its canonical spelling.
What a name stands for, and in which address family a rule has a meaning, is the part of `resolve.py`.

Connections that exist already and loopback are let through before any rule, so there is no rule about them.
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

# Numbers: the IANA registries "ICMP Type Numbers" and "ICMPv6 'type' Numbers"; the spelling is that of
# iptables. What neighbours need of each other in IPv6 is missing on purpose: RFC 4890 (4.4.1) says that it
# must not be dropped, and the compiler lets it through before any rule.
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


def _place(value: str) -> str:
    if is_name(value):
        return value
    return str(_network(value))


def _mac_place(value: str) -> str:
    if MAC_ADDRESS.fullmatch(value.lower()):
        return value.lower()
    if is_name(value):
        return value
    raise ValueError("must be a MAC address such as 02:42:ac:10:06:42, or the name of a host of the lab")


def _address(value: Any) -> IpAddress:  # noqa: ANN401 - what the config file holds, before it is known to be right
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError("must be an address such as 203.0.113.9 or 2001:db8::9") from None


def _interface(value: str) -> str:
    stem = value.removesuffix("+")
    # The kernel's rule for a device's name (dev_valid_name), less what would need quotes in a rule.
    if not stem or len(value) > 15 or not all(c.isascii() and (c.isalnum() or c in "-_.@") for c in stem):
        raise ValueError("must be an interface's name of at most 15 characters, such as eth0 or eth+")
    return value


def _printable(value: str) -> str:
    if not value.isprintable() or not value.isascii() or any(c in "\"\\'`$" for c in value):
        raise ValueError("must be printable ASCII without quotes, backslashes, backticks and $")
    return value


Place = Annotated[str, AfterValidator(_place)]
MacPlace = Annotated[str, AfterValidator(_mac_place)]
Interface = Annotated[str, AfterValidator(_interface)]
Comment = Annotated[str, StringConstraints(max_length=160), AfterValidator(_printable)]
# An ipset's name has at most 31 characters, and the compiler adds a prefix and a hash.
SetName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,14}[a-z0-9])?$")]


# The kernel keeps a rate as the time between packets, in whole units of 0.1 ms (xt_limit.h), and its credit
# for packets in a number that is sure to hold a day (xt_limit.c).
TICKS_PER_SECOND = 10_000
CREDIT_SECONDS = 86_400
SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
# How far a rate may be from the one that the kernel keeps, relative to it.
RATE_TOLERANCE = 0.05


class RateLimit(Section):
    """How often a rule may match; what comes more often goes on to the next rule."""

    packets: Whole = Field(ge=1, le=10_000, description="Packets in each unit of time.")
    per: Literal["second", "minute", "hour", "day"] = Field("second", description="The unit of time.")
    burst: Whole = Field(
        5,
        ge=1,
        le=10_000,
        description="Packets that may come at once; at most as many as the rate gives in a day.",
    )

    @model_validator(mode="after")
    def _fits_the_kernel(self) -> Self:
        ticks = SECONDS[self.per] * TICKS_PER_SECOND
        kept = ticks // (ticks // self.packets)
        if kept > self.packets * (1 + RATE_TOLERANCE):
            below = ticks // (ticks // self.packets + 1)
            raise ValueError(
                f"packets: {self.packets} per {self.per}: the kernel keeps a rate as whole units of 0.1 ms "
                f"between packets and would accept {kept}; write {below} or {kept}"
            )
        most = CREDIT_SECONDS * self.packets // SECONDS[self.per]
        if self.burst > most:
            raise ValueError(
                f"burst: {self.burst} at {self.packets} per {self.per}: the kernel saves up for a day at "
                f"most; write a burst of at most {most}, or a faster rate"
            )
        return self


class Rule(Section):
    """One line of a policy. A packet matches when all that the rule names is true of it."""

    action: Literal["accept", "drop", "reject"] = Field(
        description="accept lets the packet pass this firewall; drop is silent; reject answers the sender."
    )
    reject_with: Reject = Field(
        "port-unreachable", description="What a reject answers; each has its form in both address families."
    )
    source: Place | None = Field(
        None,
        description="Where it comes from: an address, a CIDR, a host's name, `operator`, or a named set.",
    )
    destination: Place | None = Field(
        None, description="Where it goes to, written like source. Left out: every address of the host."
    )
    source_mac: MacPlace | None = Field(
        None,
        description="The sender on the same L2 segment: a MAC address, or a host's name whose MAC is known.",
    )
    interface: Interface | None = Field(
        None, description="The interface that it arrives on; a trailing + stands for any ending."
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
        (), description="States of connection tracking. Established ones never reach a rule."
    )
    rate_limit: RateLimit | None = Field(None, description="Accept at most so many; for action accept only.")
    log: bool = Field(False, description="Also write a line, at most 5 a second, to the host's kernel log.")
    family: Family | None = Field(
        None, description="Keeps the rule to one address family. Left out: each in which it has a meaning."
    )
    comment: Comment | None = Field(
        None, description="Shown in the rule itself, after the policy's name and the rule's number."
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
                "rateLimit says how much is accepted, so it needs action: accept; "
                "a rule after it takes the rest"
            )
        return self


class Policy(Section):
    """What one policy does, and on which hosts."""

    enabled: bool = Field(True, description="The switch.")
    description: str = Field("", description="What the policy is for; free text.")
    hosts: Literal["all"] | tuple[HostName, ...] = Field(
        description="The hosts that it is for: a list of their names, or all."
    )
    applies_to: Literal["host", "published", "both"] = Field(
        "host",
        description="host: traffic to the host itself; published: to container ports that Docker publishes.",
    )
    default: Literal["accept", "drop"] = Field(
        "accept", description="What becomes of traffic that no rule of any policy on the host matches."
    )
    order: Whole = Field(
        100, ge=0, le=10_000, description="Policies of one host are read by rising order, then by name."
    )
    rules: tuple[Rule, ...] = Field((), description="The rules; the first that matches decides.")
    allow_lockout: bool = Field(
        False, description="Applied even where the guard refuses it. The undo timer stays the last defence."
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.rules and self.default == "accept":
            raise ValueError("does nothing: give it rules, or default: drop")
        if self.hosts != "all" and len(set(self.hosts)) != len(self.hosts):
            raise ValueError("hosts: names a host twice")
        if not self.hosts:
            raise ValueError("hosts: names no host; write a list of names, or all")
        return self


def _from_file(value: Any) -> Any:  # noqa: ANN401
    """Read the members of a set that is given as a file; anything else is taken as it is."""
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
    # To read a device or a pipe may never end.
    if path.is_char_device() or path.is_fifo():
        raise ValueError("is not a file")
    return path.read_text()


def _line(path: Path, number: int, text: str) -> str:
    try:
        return _place(text)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {text!r}: {error}") from None


def _members(values: Iterable[str]) -> tuple[str, ...]:
    members = tuple(values)
    if not members:
        raise ValueError("a set needs at least one member")
    if any(member.endswith("/0") for member in members):
        raise ValueError("a set that holds every address is no set: leave source or destination out instead")
    return members


SetMembers = Annotated[
    tuple[Place, ...],
    BeforeValidator(_from_file, json_schema_input_type=tuple[Place, ...] | dict[Literal["file"], str]),
    AfterValidator(_members),
]


class FirewallConfig(Section):
    """The section `calico-lab:firewall`."""

    sets: dict[SetName, SetMembers] = Field(
        default_factory=dict,
        description="Named sets of addresses, CIDRs and hosts; one rule matches a whole set, however large. "
        "`{file: PATH}` takes them from a text, one a line, with `#` comments; a config of more than 128 KiB "
        "does not get through Pulumi.",
    )
    operator: tuple[Annotated[IpAddress, BeforeValidator(_address)], ...] = Field(
        (),
        description="The addresses from which the hosts see the operator. Left out: the controller's own, as "
        "it reaches them. Needed behind NAT.",
    )
    undo_seconds: Whole = Field(
        15, ge=5, le=300, description="How long a host waits for the confirmation before it undoes a change."
    )
    policies: dict[PolicyName, Policy] = Field(
        default_factory=dict, description="The policies, by name; each is switched by its `enabled`."
    )
