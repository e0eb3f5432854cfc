"""Where a packet was lost, why, and what to do next: one function for each sort of place. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence

from components.calico.flows import peers_of
from diagnosis.status import UNKNOWN_SESSION, Finding
from diagnosis.trace.felix import plain
from diagnosis.trace.hops import NEXT_HOP, Hop, Kind
from diagnosis.trace.packets import Passage
from diagnosis.trace.side import Side
from diagnosis.trace.walk import Walk

_FELIX = "/opt/calico-lab/calico/bin/calico-node"
_CALICOCTL = "calicoctl get {} -o yaml"


def loss(walk: Walk, told: Sequence[Hop]) -> Finding | None:
    """Say where the packet, or its answer, was lost; None where neither was.

    Args:
        walk: What was seen.
        told: Its hops; the last one is where it was lost, if it was.
    """
    for host, side in walk.sides.items():
        if side.error:
            return Finding(host, f"trace: {side.error}", f"lab --stack {walk.stack} status")
    last = told[-1]
    return None if last.seen else _PLACES[last.kind](walk, last)


def _in_container(walk: Walk, hop: Hop) -> Finding:
    inside = walk.here.inside(walk.source.container)
    interface = inside.by_address(walk.source.address)
    route = inside.route(walk.target.address)
    next_hop = inside.neighbour(route.via, route.interface) if route else None
    restart = walk.ssh(walk.here.host, f"docker restart {walk.source.container}")
    if interface is None or not interface.up:
        return Finding(hop.where, "its interface of Calico is down or gone", restart)
    if route is None:
        return Finding(hop.where, f"it has no route to {walk.target.address}", restart)
    if next_hop and next_hop.mac is None:
        outer = walk.here.outer(interface)
        return Finding(
            hop.where,
            f"nobody answers ARP for {NEXT_HOP}: the host has to, by proxy ARP",
            walk.ssh(walk.here.host, f"sysctl net.ipv4.conf.{outer.name if outer else 'all'}.proxy_arp"),
        )
    what = "nothing was sent" if walk.outcome.failed else "the packet did not leave the container"
    return Finding(
        hop.where,
        f"{what}: {walk.outcome.words}",
        walk.ssh(
            walk.here.host,
            f"docker exec {walk.source.container} ip address",
        ),
    )


def _at_cali(walk: Walk, hop: Hop) -> Finding:
    request = walk.here.request
    if request and request.end:
        return _dropped(walk, walk.here, request)
    came = request.came if request else "nowhere"
    return Finding(
        hop.where,
        f"the packet came by {came} and not by {hop.what}",
        walk.ssh(walk.here.host, f"docker restart {walk.source.container}"),
    )


def _at_route(walk: Walk, hop: Hop) -> Finding:
    here, target = walk.here, walk.target
    if here.request and here.request.end:
        return _dropped(walk, here, here.request)
    route = here.here.route(target.address)
    if route and route.kind == "unicast":
        return Finding(
            hop.where,
            "the kernel took the packet no further than its routing decision",
            walk.ssh(here.host, f"ip route get {target.address} from {walk.source.address}"),
        )
    if target.host is None:
        return Finding(
            hop.where,
            f"no container of the lab has {target.address}, so no host has told of a route to it",
            f"lab --stack {walk.stack} status",
        )
    return _no_route(walk, here, target.address, target.host)


def _no_route(walk: Walk, side: Side, address: str, host: str) -> Finding:
    if any(interface.vni is not None for interface in side.here.interfaces):
        return Finding(
            side.host,
            f"has no route to {address}: Felix has not set the one into the tunnel to {host}",
            walk.ssh(side.host, "journalctl -n 20 -u calico-lab-felix"),
        )
    outputs, sessions = walk.outputs, walk.hosts[side.host].sessions
    peers = peers_of(side.host, list(outputs.hosts), outputs.route_reflectors)
    # Without a session of their own, the reflectors tell of it.
    told_by = {
        peer: sessions.get(outputs.hosts[peer], UNKNOWN_SESSION)
        for peer in ([host] if host in peers else peers)
    }
    standing = [peer for peer, session in told_by.items() if session.established]
    if not standing:
        states = "; ".join(f"{peer}: {session.state}" for peer, session in told_by.items())
        both = f"on {side.host} and on {', '.join(told_by)}"
        return Finding(
            side.host,
            f"has no route to {address}, because it has no BGP session with {states}",
            f"{both}: systemctl status calico-lab-bird; iptables -S INPUT",
        )
    return Finding(
        side.host,
        f"has no route to {address}, although its BGP session with {', '.join(standing)} stands",
        walk.ssh(host, "journalctl -n 20 -u calico-lab-confd")
        if standing == [host]
        else f"lab --stack {walk.stack} status, which knows of the session of {standing[0]} with {host}",
    )


def _at_felix(walk: Walk, hop: Hop) -> Finding:
    facts = dict(hop.facts)
    side = walk.sides[hop.where]
    if "dropped by" not in facts:
        return _unasked(walk, side, side.request) if side.request else _silent(walk, hop)
    by = facts["dropped by"]
    return Finding(
        hop.where,
        f"{hop.what}: dropped: {by}",
        walk.ssh(hop.where, _CALICOCTL.format(_resources(by)))
        if "policy " in by
        else walk.ssh(hop.where, "journalctl -n 20 -u calico-lab-felix"),
    )


def _unasked(walk: Walk, side: Side, request: Passage) -> Finding:
    """Say why a packet that came to a host was not even decided on there."""
    target = walk.target
    route = side.here.route(target.address)
    if request.end or target.host != side.host or (route and route.kind == "unicast"):
        return _dropped(walk, side, request)
    return Finding(
        side.host,
        f"has {route or 'nothing'} for {target.address} and no route into {target.name}: "
        "the container's interface is down or gone",
        walk.ssh(side.host, f"docker restart {target.container}"),
    )


def _resources(by: str) -> str:
    """Where calicoctl has a policy; one of a namespace has that in its name."""
    namespaced = re.search(r"policy ([^/ ]+)/", by)
    return f"networkpolicy --namespace {namespaced[1]}" if namespaced else "globalnetworkpolicy"


def _on_arrival(walk: Walk, hop: Hop) -> Finding:
    here = walk.here
    left = here.request.left if here.request else "no interface"
    route = here.here.route(walk.target.address)
    via = (route.via if route else None) or walk.target.address
    neighbour = here.here.neighbour(via, left)
    what = f"the packet left {here.host} by {left}, and never arrived at {hop.where}"
    interface = here.here.by_name(left)
    if interface and (interface.encrypts or interface.vni is not None):
        kind, port = ("WireGuard", 51820) if interface.encrypts else ("VXLAN", 4789)
        return Finding(
            hop.where,
            f"{what}; {kind}, UDP port {port}, does not come through between the hosts",
            walk.ssh(hop.where, f"tcpdump -ni any udp port {port}, and trace again"),
        )
    if walk.host_of(via) != hop.where:
        what += f": {here.host} sends it to {walk.host_of(via) or via}"
        return Finding(hop.where, what, f"lab --stack {walk.stack} status")
    if neighbour and neighbour.mac is None:
        what += f": nobody answers ARP for {via}"
    return Finding(
        hop.where,
        f"{what}; it is lost on the network between the hosts",
        walk.ssh(hop.where, f"tcpdump -ni any host {walk.target.address}, and trace again"),
    )


def _into(walk: Walk, hop: Hop) -> Finding:
    side = walk.there or walk.here
    return _dropped(walk, side, side.request) if side.request else _silent(walk, hop)


def _on_the_wire(walk: Walk, hop: Hop) -> Finding:
    return _dropped(walk, walk.here, walk.here.request) if walk.here.request else _silent(walk, hop)


def _no_answer(walk: Walk, hop: Hop) -> Finding:
    here, there = walk.here, walk.there
    far = there or here
    if there is None:
        hidden = here.request is not None and here.request.source != walk.source.address
        known = "" if hidden else f" (it went as {walk.source.address}, which nobody outside the lab knows)"
        return Finding(
            walk.target.name,
            f"the packet left the lab, and {walk.outcome.words}{known}",
            walk.ssh(here.host, f"ip route get {walk.target.address}") + ", and ping it from there",
        )
    if far.answer is None:
        place = "the container" if walk.target.container else "the host"
        return Finding(
            walk.target.name,
            f"{place} got the packet and did not answer {walk.flow}",
            walk.ssh(far.host, f"docker logs --tail 20 {walk.target.container}")
            if walk.target.container
            else walk.ssh(far.host, "ss -lntu"),
        )
    for side in (far, here):
        if side.answer and side.answer.end:
            return _dropped(walk, side, side.answer, "the answer")
    if "leaves" not in far.answer.reached and walk.source.host:
        return _no_route(walk, far, walk.source.address, walk.source.host)
    return Finding(
        here.host,
        f"the answer left {far.host} by {far.answer.left}, and never arrived at {walk.source.name}",
        walk.ssh(here.host, f"tcpdump -ni any host {walk.source.address}, and trace again"),
    )


def _dropped(walk: Walk, side: Side, passage: Passage, what: str = "the packet") -> Finding:
    end = passage.end
    if end is None:
        counters = f"{_FELIX} -bpf counters dump --iface={passage.came}"
        return Finding(
            side.host,
            f"{what} is lost in the host's kernel after it came by {passage.came}, and no rule dropped it",
            walk.ssh(side.host, counters if walk.outputs.by_programs else "nstat -az | grep -i drop"),
        )
    rule = plain(end.rule) or f"the end of chain {end.chain}"
    if end.path:
        return Finding(
            side.host, f"{what} is dropped by {end.path}: {rule}", f"lab --stack {walk.stack} drift"
        )
    return Finding(
        side.host,
        f"{what} is dropped in table {end.table} by {rule}",
        walk.ssh(side.host, f"iptables -t {end.table} -S {end.chain}"),
    )


def _silent(walk: Walk, hop: Hop) -> Finding:
    return Finding(hop.where, f"{hop.what}: the packet did not come here", f"lab --stack {walk.stack} status")


_PLACES: Mapping[Kind, Callable[[Walk, Hop], Finding]] = {
    "container": _in_container,
    "cali": _at_cali,
    "route": _at_route,
    "felix": _at_felix,
    "wire": _on_the_wire,
    "arrival": _on_arrival,
    "into": _into,
    "host": _into,
    "answer": _no_answer,
}
