"""What one host says of a packet's way: the lines of `side.sh` as typed facts. Pure; it judges nothing."""

import json
import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address
from typing import Any

from components.hosts.remote import Answer
from diagnosis.facts import by_name
from diagnosis.trace import packets, programs, taps
from diagnosis.trace.felix import Decision, Direction
from diagnosis.trace.packets import Passage
from diagnosis.trace.programs import Known, Program

# The first rule of such a chain names it: `--comment "Profile netv egress"` (felix/rules/policy.go).
_NAMED = re.compile(r'-A (?P<chain>\S+) .*--comment "(?P<kind>Policy|Profile) (?P<name>.+?) (?:in|e)gress"')
# BIRD 2: `192.168.7.0/26 unicast [Mesh_172_16_6_218 22:37:10.123] * (100) [i]`, the next hop in another line.
_BIRD = re.compile(r"(?P<prefix>\S+)\s+\w+ \[(?P<protocol>\S+) (?P<since>[\d:-]+)")


@dataclass(frozen=True)
class Interface:
    """A network interface."""

    name: str
    index: int
    peer: int | None
    """The index of the other end of a veth pair, in the other end's namespace."""
    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...] = ()
    """Its IPv4 addresses, with the length of the prefix that it takes for its neighbourhood."""
    vni: int | None = None
    """The number of its VXLAN network, 0 where each packet has its own; None where it is none of VXLAN."""
    encrypts: bool = False
    """Whether it is one of WireGuard."""


@dataclass(frozen=True)
class Route:
    """A route, as the kernel lists it."""

    prefix: str
    kind: str
    """`unicast`, or what becomes of its packets: `blackhole`, `unreachable`, `prohibit`."""
    via: str | None
    interface: str | None
    protocol: str
    """Who put it there: `bird`, `kernel`, `boot`, `static`, or a number (Felix's is 80)."""
    metric: int = 0
    table: str = "main"
    """The table that it is in."""

    @property
    def network(self) -> IPv4Network:
        """The addresses that it is for."""
        return IPv4Network("0.0.0.0/0" if self.prefix == "default" else self.prefix)

    def __str__(self) -> str:
        words = [self.kind] if self.kind != "unicast" else []
        words += [self.prefix, *(["via", self.via] if self.via else [])]
        words += ["dev", self.interface] if self.interface else []
        return " ".join(
            [*words, "proto", self.protocol] if self.table == "main" else [*words, "table", self.table]
        )


@dataclass(frozen=True)
class Neighbour:
    """An entry of the neighbour (ARP) table."""

    address: str
    interface: str
    mac: str | None
    """None where nobody has answered."""
    state: str

    def __str__(self) -> str:
        return f"{self.address} has {self.mac} ({self.state})" if self.mac else f"{self.address} {self.state}"


@dataclass(frozen=True)
class Namespace:
    """A network namespace: a container's, or the host's."""

    interfaces: Sequence[Interface] = ()
    neighbours: Sequence[Neighbour] = ()
    routes: Sequence[Route] = ()
    """Those of the main table."""

    def by_name(self, name: str | None) -> Interface | None:
        """The interface of a name."""
        return next((one for one in self.interfaces if one.name == name), None)

    def by_address(self, address: str) -> Interface | None:
        """The interface that has an address."""
        return next(
            (one for one in self.interfaces if address in [each.partition("/")[0] for each in one.addresses]),
            None,
        )

    def neighbour(self, address: str | None, interface: str | None) -> Neighbour | None:
        """What is known of a neighbour."""
        return next(
            (one for one in self.neighbours if (one.address, one.interface) == (address, interface)), None
        )

    def route(self, address: str) -> Route | None:
        """The route that a packet to an address takes: the longest that matches, the cheapest of those."""
        matching = [route for route in self.routes if ip_address(address) in route.network]
        return min(matching, key=lambda route: (-route.network.prefixlen, route.metric), default=None)


@dataclass(frozen=True)
class Learnt:
    """A route in BIRD's table."""

    prefix: str
    protocol: str
    """The protocol that it came from, `Mesh_172_16_6_218`."""
    since: str


@dataclass(frozen=True)
class Endpoint:
    """Calico's WorkloadEndpoint: what policies select."""

    labels: Mapping[str, str]
    profiles: Sequence[str]


Programs = Mapping[Direction, Program]


@dataclass(frozen=True)
class Side:
    """What one host said."""

    host: str
    error: str = ""
    """Why it has no answer, or no whole one."""
    request: Passage | None = None
    """How the packet came through; None where it did not come."""
    answer: Passage | None = None
    """How the first answer to it came through."""
    containers: Mapping[str, Namespace] = field(default_factory=dict)
    """The network namespace of each container at this end."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """What Calico has of each."""
    here: Namespace = field(default_factory=Namespace)
    """The host's own namespace."""
    taken: Route | None = None
    """The route that the kernel takes for the packet, with what rules have to say of tables."""
    tunnels: Mapping[str, str] = field(default_factory=dict)
    """Behind which host's address VXLAN finds a MAC address."""
    learnt: Sequence[Learnt] = ()
    """What BIRD knows of the way to the two addresses."""
    proxy_arp: Mapping[str, bool] = field(default_factory=dict)
    """Whether the host answers ARP for others, by interface."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The policy or profile that each of Felix's chains is of."""
    programs: Mapping[str, tuple[Programs, Programs]] = field(default_factory=dict)
    """Felix' programs in the kernel for each container, before the packet came and after."""

    known: Sequence[Known] = ()
    """What these programs know of addresses."""

    def known_of(self, address: str) -> Known | None:
        """What the programs know of an address: the longest prefix that matches."""
        matching = [one for one in self.known if ip_address(address) in one.network]
        return max(matching, key=lambda one: one.network.prefixlen, default=None)

    def inside(self, container: str | None) -> Namespace:
        """A container's namespace; an empty one for what it did not say."""
        return self.containers.get(container or "", Namespace())

    def decided(self, container: str, direction: Direction, *, came_out: bool) -> Decision | None:
        """What the programs for a container decided on the packet; None where they were not asked.

        Args:
            container: The container.
            direction: `egress` for what it sends, `ingress` for what it gets.
            came_out: Whether the packet was seen behind them.
        """
        before, after = self.programs.get(container, ({}, {}))
        endpoint = self.endpoints.get(container)
        profiles = endpoint.profiles if endpoint else ()
        return programs.decision(before.get(direction), after.get(direction), profiles, came_out=came_out)

    def outer(self, inner: Interface | None) -> Interface | None:
        """The host's end of a container's veth pair."""
        return next((one for one in self.here.interfaces if inner and one.index == inner.peer), None)


def parse(host: str, said: Answer, target: str) -> Side:
    """Read a host's answer to `side.sh`; what it did not say is not there.

    Args:
        host: Its name.
        said: What it said.
        target: The address that the packet went to.
    """
    if said.status != 0:
        return Side(host, error=said.error or f"exit status {said.status}")
    traced, _, told = said.text.partition("[facts]\n")
    lines = by_name(told)
    if "complete" not in lines:
        return Side(host, error=said.error or "the answer broke off")
    try:
        traces, tapped = packets.read(traced), _tapped(lines, target)
        return Side(
            host,
            request=taps.together(tapped.get("request"), traces.get("request")),
            answer=taps.together(tapped.get("answer"), traces.get("answer")),
            containers={
                name.removeprefix("/"): _namespace(lines, name)
                for name, _ in map(_pair, lines["address"])
                if name.startswith("/")
            },
            endpoints={
                name.removeprefix("/"): _endpoint(json.loads(document))
                for name, document in map(_pair, lines["endpoint"])
            },
            here=_namespace(lines, "host"),
            taken=next((_route(one) for line in lines["taken"] for one in json.loads(line)), None),
            tunnels={
                one["mac"]: one["dst"]
                for line in lines["tunnel"]
                for one in json.loads(line)
                if "mac" in one and "dst" in one
            },
            learnt=[Learnt(**found.groupdict()) for line in lines["bird"] if (found := _BIRD.match(line))],
            proxy_arp={name: value == "1" for name, value in map(_pair, lines["proxy-arp"])},
            names=dict(_name(found) for line in lines["rule"] if (found := _NAMED.search(line))),
            programs=_programs(lines),
            known=programs.known(lines["map"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Side(host, error=f"the answer cannot be read: {error}")


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def _tapped(lines: Mapping[str, Sequence[str]], target: str) -> Mapping[str, Passage]:
    seen: dict[str, list[str]] = defaultdict(list)
    for where, line in map(_pair, lines["tap"]):
        seen[where].append(line)
    return taps.passages(seen.pop("host", []), seen, target)


def _programs(lines: Mapping[str, Sequence[str]]) -> Mapping[str, tuple[Programs, Programs]]:
    dumps: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, told in map(_pair, lines["program"]):
        when, line = _pair(told)
        dumps[name, when].append(line)
    dropped: dict[tuple[str, str], dict[Direction, int]] = defaultdict(dict)
    for line in lines["drops"]:
        name, when, sent, got = line.split()
        dropped[name, when] = {"egress": int(sent), "ingress": int(got)}

    def at(name: str, when: str) -> Programs:
        return programs.read(dumps[name, when], dropped[name, when])

    names = {name for name, _ in dumps}
    return {name.removeprefix("/"): (at(name, "before"), at(name, "after")) for name in names}


def _name(found: re.Match[str]) -> tuple[str, str]:
    return found["chain"], f"{found['kind'].lower()} {found['name']}"


def _endpoint(document: Mapping[str, Any]) -> Endpoint:
    labels = document["metadata"].get("labels", {})
    own = {name: value for name, value in labels.items() if not name.startswith("projectcalico.org/")}
    return Endpoint(own, document["spec"].get("profiles", []))


def _namespace(lines: Mapping[str, Sequence[str]], name: str) -> Namespace:
    def told(fact: str) -> list[dict[str, Any]]:
        """Read what `ip -json` printed; for what it skips it prints empty objects."""
        said = [value for whose, value in map(_pair, lines[fact]) if whose == name]
        return [one for value in said for one in json.loads(value) if one]

    vnis = {one["ifname"]: one["linkinfo"]["info_data"]["id"] for one in told("vxlan")}
    encrypting = {one["ifname"] for one in told("wireguard")}
    return Namespace(
        interfaces=[_interface(one, vnis, encrypting) for one in told("address")],
        neighbours=[
            Neighbour(one["dst"], one["dev"], one.get("lladdr"), " ".join(one["state"]))
            for one in told("neighbour")
        ],
        routes=[_route(one) for one in told("route")],
    )


def _interface(one: Mapping[str, Any], vnis: Mapping[str, int], encrypting: Container[str]) -> Interface:
    return Interface(
        name=one["ifname"],
        index=one["ifindex"],
        peer=one.get("link_index"),
        mac=one.get("address", ""),
        mtu=one["mtu"],
        up="UP" in one["flags"],
        addresses=tuple(
            f"{each['local']}/{each['prefixlen']}" for each in one["addr_info"] if each["family"] == "inet"
        ),
        vni=vnis.get(one["ifname"]),
        encrypts=one["ifname"] in encrypting,
    )


def _route(one: Mapping[str, Any]) -> Route:
    return Route(
        prefix=one["dst"],
        kind=one.get("type", "unicast"),
        via=one.get("gateway"),
        interface=one.get("dev"),
        protocol=one.get("protocol", "boot"),
        metric=one.get("metric", 0),
        table=one.get("table", "main"),
    )
