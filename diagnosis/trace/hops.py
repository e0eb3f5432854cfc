"""Hops of a packet's path, in order, each with its facts and what can be learnt from it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from diagnosis.trace import hop_text, route_origin
from diagnosis.trace.felix import Direction, FelixVerdict, verdict_by_rules
from diagnosis.trace.location import Location
from diagnosis.trace.observation import Observation
from diagnosis.trace.path_facts import PathFacts

NEXT_HOP = "169.254.1.1"
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
_POLICY_LESSONS = {
    "egress": "What the container may send: the policies that select it decide, or its profile if none does.",
    "ingress": "What the container may receive: the policies that select it decide, "
    "or its profile if none does.",
}
_BPF_LESSON = (
    "A BPF program at the host's end of its veth pair applies them to the first packet of a connection."
)
_OTHER_TABLE_LESSON = (
    "A policy routing rule selects Felix's table first: its routes to other hosts' containers are encrypted."
)
Kind = Literal["container", "cali", "route", "felix", "wire", "arrival", "into", "host", "answer"]


@dataclass(frozen=True)
class Hop:
    """A hop of the path."""

    kind: Kind
    where: str
    """The host, or the container as `host/name`."""
    what: str
    lesson: str
    """What can be learnt here, in one or two sentences."""
    facts: Sequence[tuple[str, str]] = ()
    """Names and values, important ones first."""
    seen: bool = True
    """Whether the packet was seen to pass here."""


def hops(observation: Observation) -> list[Hop]:
    """Return the hops up to the first one that the packet did not pass, included; last the answer's path."""
    found = []
    for hop in _path(observation):
        found.append(hop)
        if not hop.seen:
            break
    return found


def _path(observation: Observation) -> Iterator[Hop]:
    here, there, target = observation.source_facts, observation.target_facts, observation.target
    yield _source_container(observation)
    yield _veth(observation)
    egress = _felix(observation, here, observation.source, "egress")
    if target.host == observation.source.host and target.container is None:
        yield egress
        yield _to_host(observation, here)
    else:
        # BPF programs decide where the packet comes in, iptables rules where it is forwarded.
        routing = _routing(observation)
        yield from (egress, routing) if observation.outputs.bpf else (routing, egress)
        if observation.same_host:
            yield _felix(observation, here, target, "ingress")
            yield _into_container(observation, here)
        else:
            yield _wire(observation)
            if there and not there.error:
                yield from _on_target_host(observation, there)
    if answer := _answer(observation):
        yield answer


def _on_target_host(observation: Observation, there: PathFacts) -> Iterator[Hop]:
    yield _arrival(observation, there)
    if observation.target.container:
        yield _felix(observation, there, observation.target, "ingress")
        yield _into_container(observation, there)
    else:
        yield _to_host(observation, there)


def _source_container(observation: Observation) -> Hop:
    """The sending container: its interface, address, route and next hop."""
    source, here = observation.source, observation.source_facts
    inside = here.inside(source.container)
    interface = inside.by_address(source.address)
    route = inside.route(observation.target.address)
    neighbour = inside.neighbour(route.via, route.interface) if route else None
    return Hop(
        kind="container",
        where=source.name,
        what=f"interface {interface.name if interface else 'of Calico'}",
        facts=[
            ("address", hop_text.address(interface, source)),
            ("link", hop_text.link(interface)),
            ("route", str(route) if route else f"none to {observation.target.address}"),
            ("next hop", str(neighbour) if neighbour else "not in the ARP table"),
            ("sent", f"{observation.flow}: {observation.outcome.words}"),
        ],
        lesson=f"A /32 has no neighbours: what the container sends goes to {NEXT_HOP}, an address that no "
        "machine has.",
        # A packet that came to the host has left the container, whatever its ARP table contains now.
        seen=here.request is not None,
    )


def _veth(observation: Observation) -> Hop:
    """The host's end of the sending container's veth pair."""
    here = observation.source_facts
    inner = here.inside(observation.source.container).by_address(observation.source.address)
    outer = here.outer(inner)
    name = outer.name if outer else "cali…"
    request = here.request
    drop = request.dropped_by if request else None
    early_drop = drop if drop and drop.table == "raw" else None
    facts = [
        ("pair", hop_text.veth_pair(inner, outer)),
        ("link", hop_text.link(outer)),
        ("proxy ARP", "on" if here.proxy_arp.get(name) else f"off, so nobody answers for {NEXT_HOP}"),
    ]
    if early_drop:
        facts.append(("dropped by", hop_text.rule(early_drop)))
    return Hop(
        kind="cali",
        where=here.host,
        what=f"interface {name}",
        facts=facts,
        lesson=f"The other end of the veth pair. It answers ARP for {NEXT_HOP} with {CALICO_MAC}, by which "
        "the host is the container's router.",
        seen=request is not None and request.in_interface == name and early_drop is None,
    )


def _routing(observation: Observation) -> Hop:
    """The routing decision of the source's host, and who installed the route."""
    here = observation.source_facts
    route = here.namespace.route(observation.target.address)
    facts = [("route", str(route) if route else f"none to {observation.target.address}")]
    if route:
        facts.extend(route_origin.origin(observation, here, route))
    if here.lookup and here.lookup.table != "main":
        facts.append(("instead", str(here.lookup)))
        lesson = _OTHER_TABLE_LESSON
    else:
        lesson = route_origin.lesson(here, route)
    if known := here.bpf_route(observation.target.address):
        facts.append(("map", str(known)))
    return Hop("route", here.host, "route", lesson, facts, seen=_is_routed(observation))


def _is_routed(observation: Observation) -> bool:
    """Whether the packet was seen behind the routing decision of the source's host."""
    request = observation.source_facts.request
    if request is None:
        return False
    if observation.outputs.bpf and observation.same_host:
        verdict = _verdict(observation, observation.source_facts, observation.target, "ingress")
        if verdict:
            return True
    in_forward_chain = any(step.chain == "FORWARD" for step in request.steps)
    return in_forward_chain or bool({"forwarded", "sent"} & request.reached)


def _felix(observation: Observation, host: PathFacts, location: Location, direction: Direction) -> Hop:
    """Felix's verdict for a container in one direction, and the policy or profile behind it."""
    verdict = _verdict(observation, host, location, direction)
    endpoint = host.endpoints.get(location.container or "")
    facts = []
    if verdict:
        facts = [
            ("program" if observation.outputs.bpf else "chains", " → ".join(verdict.chains)),
            ("allowed by" if verdict.passes else "dropped by", verdict.by),
            ("rule", verdict.rule),
        ]
    if endpoint:
        labels = ", ".join(f"{name}={value}" for name, value in endpoint.labels.items()) or "none"
        facts.append(("endpoint", f"labels {labels}; profiles {', '.join(endpoint.profiles) or 'none'}"))
    lesson = _POLICY_LESSONS[direction]
    return Hop(
        kind="felix",
        where=host.host,
        what=f"Felix, {'from' if direction == 'egress' else 'to'} {location.container}",
        facts=facts,
        lesson=f"{lesson} {_BPF_LESSON}" if observation.outputs.bpf else lesson,
        seen=verdict is not None and verdict.passes,
    )


def _verdict(
    observation: Observation, host: PathFacts, location: Location, direction: Direction
) -> FelixVerdict | None:
    request = host.request
    if request is None:
        return None
    if not observation.outputs.bpf:
        return verdict_by_rules(request.steps, direction, host.chain_names)
    # A BPF program may also pass a packet from the container on to netfilter.
    passed = "sent" in request.reached or (direction == "egress" and bool(request.steps))
    return host.program_verdict(location.container or "", direction, passed=passed)


def _wire(observation: Observation) -> Hop:
    """How the packet leaves the source's host."""
    here = observation.source_facts
    request = here.request
    route = here.namespace.route(observation.target.address)
    # The interface that it left by, else the one that the route has.
    out = request.out_interface if request else ""
    name = out or (route.interface if route else None)
    interface = here.namespace.by_name(name)
    via = route.via if route and route.via else observation.target.address
    neighbour = here.namespace.neighbour(via, name)
    facts = [
        ("leaves by", f"{name or 'no interface'}: {hop_text.link(interface)}"),
        ("next hop", hop_text.next_hop(observation, via, neighbour, interface)),
        ("encapsulation", hop_text.encapsulation(interface)),
    ]
    nat = request.source if request and out and request.source != observation.source.address else None
    if nat:
        facts.append(("source", f"{nat} in the place of {observation.source.address} (natOutgoing)"))
    if drop := request.dropped_by if request else None:
        facts.append(("dropped by", f"{drop.table} {hop_text.rule(drop)}"))
    if nat:
        lesson = (
            "Outside the container network no machine has a route back to a "
            "container, so NAT inserts the host's address."
        )
    elif interface and interface.encrypts:
        lesson = (
            "The packet is encrypted inside a UDP packet: the wire shows which "
            "hosts communicate, and how much."
        )
    elif interface and interface.vni is not None:
        lesson = "The packet is inside a UDP packet between the hosts, so any network can be between them."
    else:
        lesson = (
            "The frame goes from host to host; the packet in it is the container's, without tunnel and NAT."
        )
    return Hop(
        "wire", here.host, "wire", lesson, facts, seen=request is not None and "sent" in request.reached
    )


def _arrival(observation: Observation, host: PathFacts) -> Hop:
    """How the packet comes in on the target's host, and its route there."""
    target, request = observation.target, host.request
    route = host.namespace.route(target.address) if target.container else None
    facts = [
        (
            "comes by",
            f"{request.in_interface}, with a time to live of {request.ttl}" if request else "not seen",
        )
    ]
    if target.container:
        facts.append(("route", str(route) if route else f"none to {target.address}"))
    drop = request.dropped_by if request else None
    if drop and not drop.chain.startswith(("cali-tw-", "cali-pi-", "cali-pri-", "cali-to-wl")):
        facts.append(("dropped by", f"{drop.table} {hop_text.rule(drop)}"))
    lesson = (
        "The Docker driver installs a route for each container here; the other hosts know only the block."
        if target.container
        else "The address is the host's own, so the path ends here."
    )
    return Hop("arrival", host.host, "arrival", lesson, facts, seen=request is not None)


def _into_container(observation: Observation, host: PathFacts) -> Hop:
    """The target container: both ends of its veth pair, and its address."""
    target, request = observation.target, host.request
    inner = host.inside(target.container).by_address(target.address)
    outer = host.outer(inner)
    neighbour = host.namespace.neighbour(target.address, outer.name if outer else None)
    return Hop(
        kind="into",
        where=target.name,
        what=f"interface {inner.name if inner else 'of Calico'}",
        facts=[
            ("comes by", outer.name if outer else "no interface of the host"),
            ("pair", hop_text.veth_pair(inner, outer)),
            ("address", hop_text.address(inner, target)),
            ("link", hop_text.link(inner)),
            ("neighbour", str(neighbour) if neighbour else f"nobody has {target.address}"),
        ],
        lesson="From the host's end of the veth pair to the container's: the frame is addressed to its MAC.",
        seen=request is not None and "sent" in request.reached,
    )


def _to_host(observation: Observation, host: PathFacts) -> Hop:
    """The target, if it is a host."""
    request = host.request
    facts = [("address", f"{observation.target.address} is {host.host}'s own")]
    if drop := request.dropped_by if request else None:
        facts.append(("dropped by", f"{hop_text.rule(drop)}{f' ({drop.path})' if drop.path else ''}"))
    return Hop(
        kind="host",
        where=host.host,
        what="the host itself",
        facts=facts,
        lesson="What is for the host passes its INPUT chain: Felix's, then the lab's firewall policies.",
        seen=request is not None and "delivered" in request.reached,
    )


def _answer(observation: Observation) -> Hop | None:
    """The answer's path, in one hop; None if no answer is expected and none was seen."""
    here, there = observation.source_facts, observation.target_facts
    hosts = [here] if observation.same_host or there is None else [there, here]
    watched = [host for host in hosts if not host.error]
    udp = observation.flow.protocol == "udp"
    facts = []
    for host in watched:
        if host.answer is None:
            facts.append((host.host, "no answer was seen"))
            break
        facts.append((host.host, hop_text.answer(host.answer)))
    arrived = here.answer is not None and bool({"sent", "delivered"} & here.answer.reached)
    if not arrived and udp and not any(host.answer for host in watched):
        return None
    knows = "The programs' map" if observation.outputs.bpf else "Conntrack"
    return Hop(
        kind="answer",
        where=observation.target.name,
        what="the answer",
        facts=[*facts, ("result", observation.outcome.words)],
        lesson=f"{knows} knows the connection now: Felix lets its answers pass before it asks any policy.",
        # The answer may be an ICMP error from a router.
        seen=arrived and (observation.outcome.answered or udp),
    )
