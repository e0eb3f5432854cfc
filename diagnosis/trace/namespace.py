"""Network namespace of a host or container: interfaces, neighbours, routes, from `ip -json`. Pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Any


@dataclass(frozen=True)
class Interface:
    """A network interface."""

    name: str
    index: int
    peer: int | None
    """For a veth interface: the index of the other end, in that end's namespace."""
    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...] = ()
    """IPv4 addresses in CIDR notation (on-link prefix)."""
    vni: int | None = None
    """VXLAN network identifier (0 in collect-metadata mode); None if it is not a VXLAN interface."""
    encrypts: bool = False
    """Whether it is a WireGuard interface."""


@dataclass(frozen=True)
class Route:
    """A route of the kernel."""

    prefix: str
    """A network, an address, or `default`."""
    kind: str
    """`unicast`, `blackhole`, `unreachable` or `prohibit`."""
    via: str | None
    interface: str | None
    protocol: str
    """Who installed it: `bird`, `kernel`, `boot`, `static`, or a number (Felix: 80)."""
    metric: int = 0
    table: str = "main"

    @property
    def network(self) -> IPv4Network:
        """The addresses that the route is for."""
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
    """None if ARP has no answer."""
    state: str

    def __str__(self) -> str:
        return f"{self.address} has {self.mac} ({self.state})" if self.mac else f"{self.address} {self.state}"


@dataclass(frozen=True)
class Namespace:
    """A network namespace."""

    interfaces: Sequence[Interface] = ()
    neighbours: Sequence[Neighbour] = ()
    routes: Sequence[Route] = ()
    """The routes of the main table."""

    def by_name(self, name: str | None) -> Interface | None:
        """Return the interface with a name."""
        return next((one for one in self.interfaces if one.name == name), None)

    def by_address(self, address: str) -> Interface | None:
        """Return the interface with an address."""
        return next(
            (one for one in self.interfaces if address in [each.partition("/")[0] for each in one.addresses]),
            None,
        )

    def by_peer(self, peer: Interface | None) -> Interface | None:
        """Return the interface here whose other veth end is `peer`, in another namespace."""
        return next((one for one in self.interfaces if peer and one.index == peer.peer), None)

    def neighbour(self, address: str | None, interface: str | None) -> Neighbour | None:
        """Return the neighbour table's entry for an address."""
        return next(
            (one for one in self.neighbours if (one.address, one.interface) == (address, interface)), None
        )

    def route(self, address: str) -> Route | None:
        """Return the route to an address: the longest matching prefix, then the lowest metric."""
        matching = [route for route in self.routes if ip_address(address) in route.network]
        return min(matching, key=lambda route: (-route.network.prefixlen, route.metric), default=None)


Objects = Iterable[Mapping[str, Any]]
"""Objects that `ip -json` printed."""


def parse_namespace(
    addresses: Objects, neighbours: Objects, routes: Objects, vxlans: Objects, wireguards: Objects
) -> Namespace:
    """Make a namespace from what `ip -json` printed.

    Args:
        addresses: From `ip address show`.
        neighbours: From `ip neighbour show`.
        routes: From `ip -details route show table main`.
        vxlans: From `ip -details link show type vxlan`.
        wireguards: From `ip -details link show type wireguard`.
    """
    vnis = {one["ifname"]: one["linkinfo"]["info_data"]["id"] for one in vxlans}
    encrypting = {one["ifname"] for one in wireguards}
    return Namespace(
        interfaces=[_interface(one, vnis, encrypting) for one in addresses],
        neighbours=[
            Neighbour(one["dst"], one["dev"], one.get("lladdr"), " ".join(one["state"])) for one in neighbours
        ],
        routes=[parse_route(one) for one in routes],
    )


def parse_route(one: Mapping[str, Any]) -> Route:
    """Make a route from an object that `ip -json route` printed."""
    return Route(
        prefix=one["dst"],
        kind=one.get("type", "unicast"),
        via=one.get("gateway"),
        interface=one.get("dev"),
        protocol=one.get("protocol", "boot"),
        metric=one.get("metric", 0),
        table=one.get("table", "main"),
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
