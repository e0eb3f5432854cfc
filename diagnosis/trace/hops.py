"""The hops of a packet's way, in their order, each with the facts that make it so. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

from diagnosis.facts import Session, peer_of
from diagnosis.trace.ends import End
from diagnosis.trace.felix import Decision, Direction, decision, plain
from diagnosis.trace.packets import Passage
from diagnosis.trace.side import Interface, Learnt, Neighbour, Route, Side
from diagnosis.trace.walk import Walk

NEXT_HOP = "169.254.1.1"
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
# Linux's number for routes of Felix (felix/dataplane/linux/dataplanedefs).
_FELIX = "80"
_MAY = {
    "egress": "What the container may send: the policies that select it, and where none does its profile.",
    "ingress": "What the container may get: the policies that select it, and where none does its profile.",
}
_ANOTHER_TABLE = (
    "A rule has another table asked first: Felix', whose routes lead to other hosts' containers encrypted."
)
_PROGRAM = "A program asks them at the host's end of its veth pair, of the first packet of a connection."
Kind = Literal["container", "cali", "route", "felix", "wire", "arrival", "into", "host", "answer"]
"""The sorts of places on the way."""


@dataclass(frozen=True)
class Hop:
    """A place on the way."""

    kind: Kind
    where: str
    """The host, or the container as `host/name`."""
    what: str
    lesson: str
    """What is to be learnt here, in a sentence or two."""
    facts: Sequence[tuple[str, str]] = ()
    """Names and values, the important first."""
    seen: bool = True
    """Whether the packet was seen to come through here."""


def hops(walk: Walk) -> list[Hop]:
    """Tell the way up to where the packet was last seen, that place included, and the way of its answer."""
    told = []
    for hop in _way(walk):
        told.append(hop)
        if not hop.seen:
            break
    return told


def _way(walk: Walk) -> Iterator[Hop]:
    here, there, target = walk.here, walk.there, walk.target
    yield container(walk)
    yield cali(walk)
    if target.host == walk.source.host and target.container is None:
        yield felix(walk, here, walk.source, "egress")
        yield to_host(walk, here)
    else:
        sent = [routing(walk), felix(walk, here, walk.source, "egress")]
        # Programs decide where the packet comes in, rules where it is forwarded.
        yield from reversed(sent) if walk.outputs.by_programs else sent
        if walk.one_host:
            yield felix(walk, here, target, "ingress")
            yield into_container(walk, here)
        else:
            yield wire(walk)
            if there and not there.error:
                yield arrival(walk, there)
                if target.container:
                    yield felix(walk, there, target, "ingress")
                    yield into_container(walk, there)
                else:
                    yield to_host(walk, there)
    if answer := back(walk):
        yield answer


def container(walk: Walk) -> Hop:
    """Tell the container's own view: one interface, one address, one next hop."""
    source, inside = walk.source, walk.here.inside(walk.source.container)
    interface = inside.by_address(source.address)
    route = inside.route(walk.target.address)
    neighbour = inside.neighbour(route.via, route.interface) if route else None
    return Hop(
        kind="container",
        where=source.name,
        what=f"interface {interface.name if interface else 'of Calico'}",
        facts=[
            ("address", _addresses(interface, source)),
            ("link", _link(interface)),
            ("route", str(route) if route else f"none to {walk.target.address}"),
            ("next hop", str(neighbour) if neighbour else "nobody has been asked for"),
            ("sent", f"{walk.flow}: {walk.outcome.words}"),
        ],
        lesson=f"A /32 has no neighbours: what the container sends goes to {NEXT_HOP}, an address that no "
        "machine has.",
        # What came to the host has left the container, whatever the container's neighbour table says now.
        seen=walk.here.request is not None,
    )


def cali(walk: Walk) -> Hop:
    """Tell the host's end of the container's veth pair."""
    here = walk.here
    inner = here.inside(walk.source.container).by_address(walk.source.address)
    outer = here.outer(inner)
    name = outer.name if outer else "cali…"
    proxy = here.proxy_arp.get(name)
    request = here.request
    dropped = request.end if request else None
    facts = [
        ("pair", _pair(inner, outer)),
        ("link", _link(outer)),
        ("proxy ARP", "on" if proxy else f"off, so nobody answers for {NEXT_HOP}"),
    ]
    if dropped and dropped.table == "raw":
        facts.append(("dropped by", plain(dropped.rule)))
    return Hop(
        kind="cali",
        where=here.host,
        what=f"interface {name}",
        facts=facts,
        lesson=f"The other end of the veth pair. It answers ARP for {NEXT_HOP} with {CALICO_MAC}, by which "
        "the host is the container's router.",
        seen=request is not None and request.came == name and not (dropped and dropped.table == "raw"),
    )


def routing(walk: Walk) -> Hop:
    """Tell the sender's host's decision where the packet goes, and who told it so."""
    here = walk.here
    route = here.here.route(walk.target.address)
    facts = [("route", str(route) if route else f"none to {walk.target.address}")]
    if route:
        facts.extend(_origin(walk, here, route))
    if here.taken and here.taken.table != "main":
        facts.append(("instead", str(here.taken)))
        lesson = _ANOTHER_TABLE
    else:
        lesson = _lesson_of_route(here, route)
    if known := here.known_of(walk.target.address):
        facts.append(("map", str(known)))
    return Hop(
        kind="route",
        where=here.host,
        what="route",
        facts=facts,
        lesson=lesson,
        seen=_routed(walk),
    )


def felix(walk: Walk, side: Side, end: End, direction: Direction) -> Hop:
    """Tell what Felix's chains or programs decide, and by which policy or profile."""
    decided = _decided(walk, side, end, direction)
    endpoint = side.endpoints.get(end.container or "")
    facts = []
    if decided:
        facts = [
            ("program" if walk.outputs.by_programs else "chains", " → ".join(decided.chains)),
            ("allowed by" if decided.passes else "dropped by", decided.by),
            ("rule", decided.rule),
        ]
    if endpoint:
        labels = ", ".join(f"{name}={value}" for name, value in endpoint.labels.items()) or "none"
        facts.append(("endpoint", f"labels {labels}; profiles {', '.join(endpoint.profiles) or 'none'}"))
    return Hop(
        kind="felix",
        where=side.host,
        what=f"Felix, {'from' if direction == 'egress' else 'to'} {end.container}",
        facts=facts,
        lesson=f"{_MAY[direction]} {_PROGRAM}" if walk.outputs.by_programs else _MAY[direction],
        seen=decided is not None and decided.passes,
    )


def _decided(walk: Walk, side: Side, end: End, direction: Direction) -> Decision | None:
    request = side.request
    if request is None:
        return None
    if not walk.outputs.by_programs:
        return decision(request.steps, direction, side.names)
    # What the container sends may also have come to netfilter, from the program at its interface.
    came_out = "leaves" in request.reached or (direction == "egress" and bool(request.steps))
    return side.decided(end.container or "", direction, came_out=came_out)


def _routed(walk: Walk) -> bool:
    """Whether the packet was seen behind the routing decision of the sender's host."""
    request = walk.here.request
    if request is None:
        return False
    if walk.outputs.by_programs and walk.one_host and _decided(walk, walk.here, walk.target, "ingress"):
        return True
    return bool({"forwarded", "leaves"} & request.reached) or _asked(request, "FORWARD")


def wire(walk: Walk) -> Hop:
    """Tell how the packet leaves the sender's host."""
    here, request = walk.here, walk.here.request
    route = here.here.route(walk.target.address)
    # By the way that it took, where it took one, and else by the one that it would take.
    name = request.left if request and request.left else (route.interface if route else None)
    interface = here.here.by_name(name)
    via = route.via if route and route.via else walk.target.address
    neighbour = here.here.neighbour(via, name)
    facts = [
        ("leaves by", f"{name or 'no interface'}: {_link(interface)}"),
        ("next hop", _next_hop(walk, via, neighbour, interface)),
        ("encapsulation", _encapsulation(interface)),
    ]
    hidden = request is not None and request.left and request.source != walk.source.address
    if request and hidden:
        facts.append(("source", f"{request.source} in the place of {walk.source.address} (natOutgoing)"))
    if request and request.end:
        facts.append(("dropped by", f"{request.end.table} {plain(request.end.rule) or request.end.chain}"))
    if hidden:
        lesson = "Off the containers' network nobody has a route back to them: the host lends its address."
    elif interface and interface.encrypts:
        lesson = (
            "The packet travels encrypted in a UDP packet: the wire shows which hosts talk, and how much."
        )
    elif interface and interface.vni is not None:
        lesson = "The packet travels in a UDP packet between the hosts: any network between them will do."
    else:
        lesson = (
            "The frame goes from host to host, the packet in it is the container's own: no tunnel, no NAT."
        )
    return Hop(
        kind="wire",
        where=here.host,
        what="wire",
        facts=facts,
        lesson=lesson,
        seen=request is not None and "leaves" in request.reached,
    )


def arrival(walk: Walk, there: Side) -> Hop:
    """Tell where the packet comes in on the target's host, and where that sends it."""
    request = there.request
    route = there.here.route(walk.target.address) if walk.target.container else None
    facts = [("comes by", f"{request.came}, with a time to live of {request.ttl}" if request else "not seen")]
    if walk.target.container:
        facts.append(("route", str(route) if route else f"none to {walk.target.address}"))
    dropped = request.end if request else None
    if dropped and not dropped.chain.startswith(("cali-tw-", "cali-pi-", "cali-pri-", "cali-to-wl")):
        facts.append(("dropped by", f"{dropped.table} {plain(dropped.rule) or dropped.chain}"))
    lesson = (
        "The Docker driver puts a route for each container here; the other hosts know the block alone."
        if walk.target.container
        else "The address is the host's own, so this is the end of the way."
    )
    return Hop("arrival", there.host, "arrival", lesson, facts, seen=request is not None)


def into_container(walk: Walk, side: Side) -> Hop:
    """Tell the last step: into the container that the packet is for."""
    target, request = walk.target, side.request
    inner = side.inside(target.container).by_address(target.address)
    outer = side.outer(inner)
    neighbour = side.here.neighbour(target.address, outer.name if outer else None)
    return Hop(
        kind="into",
        where=target.name,
        what=f"interface {inner.name if inner else 'of Calico'}",
        facts=[
            ("comes by", outer.name if outer else "no interface of the host"),
            ("pair", _pair(inner, outer)),
            ("address", _addresses(inner, target)),
            ("link", _link(inner)),
            ("neighbour", str(neighbour) if neighbour else f"nobody has {target.address}"),
        ],
        lesson="From the host's end of the veth pair to the container's: the frame is addressed to its MAC.",
        seen=request is not None and "leaves" in request.reached,
    )


def to_host(walk: Walk, side: Side) -> Hop:
    """Tell the end of a way that ends at a host itself."""
    request = side.request
    facts = [("address", f"{walk.target.address} is {side.host}'s own")]
    if request and request.end:
        path = f" ({request.end.path})" if request.end.path else ""
        facts.append(("dropped by", f"{plain(request.end.rule) or request.end.chain}{path}"))
    return Hop(
        kind="host",
        where=side.host,
        what="the host itself",
        facts=facts,
        lesson="What is for the host passes its INPUT chain: Felix's, then the lab's firewall policies.",
        seen=request is not None and "delivered" in request.reached,
    )


def back(walk: Walk) -> Hop | None:
    """Tell the answer's way, in one hop; None where there is nothing to tell."""
    here, there = walk.here, walk.there
    watched = [
        side for side in ([here] if walk.one_host or there is None else [there, here]) if not side.error
    ]
    facts = []
    for side in watched:
        if side.answer is None:
            facts.append((side.host, "no answer was seen"))
            break
        facts.append((side.host, _passage(side.answer)))
    who = "The programs' map" if walk.outputs.by_programs else "Conntrack"
    came = here.answer is not None and bool({"leaves", "delivered"} & here.answer.reached)
    if not came and walk.flow.protocol == "udp" and not any(side.answer for side in watched):
        return None
    return Hop(
        kind="answer",
        where=walk.target.name,
        what="the answer",
        facts=[*facts, ("result", walk.outcome.words)],
        lesson=f"{who} knows the connection now: Felix lets its answers pass before it asks any policy.",
        # An answer may be an error, from a router on the way.
        seen=came and (walk.outcome.answered or walk.flow.protocol == "udp"),
    )


def _passage(answer: Passage) -> str:
    words = [f"comes by {answer.came}" if answer.came else "is made here"]
    if answer.left:
        words.append(f"leaves by {answer.left}")
    elif "leaves" in answer.reached:
        words.append("is put straight into the container")
    if answer.end:
        words.append(f"is dropped by {plain(answer.end.rule)}")
    says = f" ({answer.says})" if answer.says else ""
    return f"{', '.join(words)}{says}"


def _asked(passage: Passage, chain: str) -> bool:
    return any(step.chain == chain for step in passage.steps)


def _addresses(interface: Interface | None, end: End) -> str:
    found = [one for one in interface.addresses if one.startswith(f"{end.address}/")] if interface else []
    return found[0] if found else f"{end.address} is on no interface"


def _link(interface: Interface | None) -> str:
    if interface is None:
        return "there is no such interface"
    mac = f"{interface.mac}, " if interface.mac else ""
    return f"{mac}MTU {interface.mtu}{'' if interface.up else ', DOWN'}"


def _pair(inner: Interface | None, outer: Interface | None) -> str:
    if inner is None or outer is None:
        return "the container's interface has no other end here"
    whole = "each names the other" if outer.peer == inner.index else "they do not name each other"
    return f"index {outer.index} here, {inner.index} in the container; {whole}"


def _next_hop(walk: Walk, via: str, neighbour: Neighbour | None, interface: Interface | None) -> str:
    # With rules the kernel knows whom a tunnel's end is behind, with programs their map does.
    known = walk.here.known_of(walk.target.address)
    behind = (walk.here.tunnels.get(neighbour.mac or "") if neighbour else None) or (known and known.host)
    host = walk.host_of(behind or via)
    through = f", behind {behind}" if behind and behind != via else ""
    who = f", that is {host}" if host else ""
    if interface and interface.encrypts:
        return f"{via}, which has the key{who}"
    return f"{neighbour or f'{via}, whose MAC address is not known'}{through}{who}"


def _encapsulation(interface: Interface | None) -> str:
    if interface and interface.vni is not None:
        network = f", network {interface.vni}" if interface.vni else ""
        return f"VXLAN{network}, by {interface.name}: 50 bytes of each frame are the tunnel's"
    if interface and interface.encrypts:
        return f"WireGuard, by {interface.name}: 60 bytes of each packet on the wire are the tunnel's"
    return "none: the frame carries the packet as it is"


def session_of(walk: Walk, side: Side, route: Route) -> tuple[str, Session | None]:
    """The peer that a host has a route from, by name where it is a host, and the BGP session with it.

    It need not be the next hop: a route reflector tells of others' blocks.
    """
    learnt = _learnt(side, route)
    peer = (peer_of(learnt.protocol) if learnt else None) or route.via or ""
    return walk.host_of(peer) or peer, walk.hosts[side.host].sessions.get(peer)


def _learnt(side: Side, route: Route) -> Learnt | None:
    return next((one for one in side.learnt if IPv4Network(one.prefix) == route.network), None)


def _origin(walk: Walk, side: Side, route: Route) -> Iterator[tuple[str, str]]:
    """Who has put a route there."""
    if route.protocol == "bird" and route.via:
        peer, session = session_of(walk, side, route)
        state = f"{session.state} since {session.since}" if session else "not known to BIRD"
        yield "from", f"BIRD, by BGP from {peer}: {state}"
        if learnt := _learnt(side, route):
            yield "learnt", f"{learnt.protocol} at {learnt.since}"
    elif _tunnelled(side, route):
        yield "from", "Felix, which knows each host's blocks from Calico's datastore"
    elif route.interface and route.interface.startswith("cali"):
        yield "from", "the Docker driver, when the container started"
    elif route.kind != "unicast":
        yield (
            "from",
            {"bird": "BIRD, for this host's own block", _FELIX: "Felix, for this host's own block"}.get(
                route.protocol, "the lab: what no host has told of is nowhere"
            ),
        )
    elif route.prefix != "default":
        yield "from", f"the kernel: {route.interface} has an address of that network"


def _tunnelled(side: Side, route: Route) -> bool:
    interface = side.here.by_name(route.interface)
    return interface is not None and interface.vni is not None


def _lesson_of_route(side: Side, route: Route | None) -> str:
    if route is None or route.kind != "unicast":
        return "No host has told of this address: the way ends here, and does not lead out of the lab."
    if route.interface and route.interface.startswith("cali"):
        return "The container is on this very host: the route leads into its veth pair."
    if route.protocol == "bird":
        return "Each host tells the others by BGP which blocks of addresses its containers have."
    if _tunnelled(side, route):
        return "Each host's blocks have a route into the tunnel; its next hop is that host's end of it."
    if route.prefix != "default":
        return "The address is one of the hosts' own network: no router is needed, and ARP finds it."
    return "The address is none of the lab's: what a host knows nothing of goes to its own router."
