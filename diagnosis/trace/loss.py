"""Where a packet was lost, why, and what to do next: one function for each kind of hop. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence

from components.calico.flows import VXLAN_PORT, WIREGUARD_PORT, peers_of
from diagnosis.finding import Finding
from diagnosis.status import UNKNOWN_SESSION
from diagnosis.trace.felix import without_noise
from diagnosis.trace.hops import NEXT_HOP, Hop, Kind
from diagnosis.trace.observation import Observation
from diagnosis.trace.packet_trace import PacketTrace
from diagnosis.trace.path_facts import PathFacts

_CALICO_NODE = "/opt/calico-lab/calico/bin/calico-node"


def loss(observation: Observation, hops: Sequence[Hop]) -> Finding | None:
    """Say where the packet or its answer was lost; None if both arrived.

    Args:
        observation: The observation.
        hops: Its hops. If the packet was lost, then at the last one.
    """
    for host, facts in observation.path.items():
        if facts.error:
            return Finding(host, f"trace: {facts.error}", f"lab --stack {observation.stack} status")
    last = hops[-1]
    return None if last.seen else _BY_KIND[last.kind](observation, last)


def _in_container(observation: Observation, hop: Hop) -> Finding:
    source, here = observation.source, observation.source_facts
    inside = here.inside(source.container)
    interface = inside.by_address(source.address)
    route = inside.route(observation.target.address)
    next_hop = inside.neighbour(route.via, route.interface) if route else None
    restart = observation.ssh(here.host, f"docker restart {source.container}")
    if interface is None or not interface.up:
        return Finding(hop.where, "its interface of Calico is down or gone", restart)
    if route is None:
        return Finding(hop.where, f"it has no route to {observation.target.address}", restart)
    if next_hop and next_hop.mac is None:
        outer = here.outer(interface)
        return Finding(
            hop.where,
            f"nobody answers ARP for {NEXT_HOP}: the host has to, by proxy ARP",
            observation.ssh(here.host, f"sysctl net.ipv4.conf.{outer.name if outer else 'all'}.proxy_arp"),
        )
    what = "nothing was sent" if observation.outcome.failed else "the packet did not leave the container"
    return Finding(
        hop.where,
        f"{what}: {observation.outcome.words}",
        observation.ssh(here.host, f"docker exec {source.container} ip address"),
    )


def _at_veth(observation: Observation, hop: Hop) -> Finding:
    here = observation.source_facts
    if here.request and here.request.dropped_by:
        return _dropped(observation, here, here.request)
    came = here.request.in_interface if here.request else "nowhere"
    return Finding(
        hop.where,
        f"the packet came by {came} and not by {hop.what}",
        observation.ssh(here.host, f"docker restart {observation.source.container}"),
    )


def _at_route(observation: Observation, hop: Hop) -> Finding:
    here, target = observation.source_facts, observation.target
    if here.request and here.request.dropped_by:
        return _dropped(observation, here, here.request)
    route = here.namespace.route(target.address)
    if route and route.kind == "unicast":
        return Finding(
            hop.where,
            "the kernel took the packet no further than its routing decision",
            observation.ssh(here.host, f"ip route get {target.address} from {observation.source.address}"),
        )
    if target.host is None:
        return Finding(
            hop.where,
            f"no container of the lab has {target.address}, so no host announces a route to it",
            f"lab --stack {observation.stack} status",
        )
    return _no_route(observation, here, target.address, target.host)


def _no_route(observation: Observation, facts: PathFacts, address: str, owner: str) -> Finding:
    """Say why a host has no route to an address of the host `owner`."""
    host = facts.host
    if any(interface.vni is not None for interface in facts.namespace.interfaces):
        return Finding(
            host,
            f"has no route to {address}: Felix has not set the one into the tunnel to {owner}",
            observation.ssh(host, "journalctl -n 20 -u calico-lab-felix"),
        )
    outputs, sessions = observation.outputs, observation.hosts[host].sessions
    peers = peers_of(host, list(outputs.hosts), outputs.route_reflectors)
    # Without a session with the owner, route reflectors announce its blocks.
    announcers = {
        peer: sessions.get(outputs.hosts[peer], UNKNOWN_SESSION)
        for peer in ([owner] if owner in peers else peers)
    }
    established = [peer for peer, session in announcers.items() if session.established]
    if not established:
        states = "; ".join(f"{peer}: {session.state}" for peer, session in announcers.items())
        return Finding(
            host,
            f"has no route to {address}, because it has no BGP session with {states}",
            f"on {host} and on {', '.join(announcers)}: systemctl status calico-lab-bird; iptables -S INPUT",
        )
    status = f"lab --stack {observation.stack} status"
    return Finding(
        host,
        f"has no route to {address}, although its BGP session with {', '.join(established)} stands",
        observation.ssh(owner, "journalctl -n 20 -u calico-lab-confd")
        if established == [owner]
        else f"{status}, which knows of the session of {established[0]} with {owner}",
    )


def _at_felix(observation: Observation, hop: Hop) -> Finding:
    host = observation.path[hop.where]
    by = dict(hop.facts).get("dropped by")
    if by is None:
        return _no_verdict(observation, host, host.request) if host.request else _not_seen(observation, hop)
    command = (
        f"calicoctl get {_resource(by)} -o yaml"
        if "policy " in by
        else "journalctl -n 20 -u calico-lab-felix"
    )
    return Finding(hop.where, f"{hop.what}: dropped: {by}", observation.ssh(hop.where, command))


def _no_verdict(observation: Observation, facts: PathFacts, request: PacketTrace) -> Finding:
    """Say why Felix had no verdict on a packet that came to the host."""
    target, host = observation.target, facts.host
    route = facts.namespace.route(target.address)
    if request.dropped_by or target.host != host or (route and route.kind == "unicast"):
        return _dropped(observation, facts, request)
    return Finding(
        host,
        f"has {route or 'nothing'} for {target.address} and no route into {target.name}: "
        "the container's interface is down or gone",
        observation.ssh(host, f"docker restart {target.container}"),
    )


def _resource(by: str) -> str:
    """The calicoctl arguments for a policy. A namespaced policy's name begins with its namespace."""
    namespaced = re.search(r"policy ([^/ ]+)/", by)
    return f"networkpolicy --namespace {namespaced[1]}" if namespaced else "globalnetworkpolicy"


def _on_arrival(observation: Observation, hop: Hop) -> Finding:
    here = observation.source_facts
    out = here.request.out_interface if here.request else "no interface"
    route = here.namespace.route(observation.target.address)
    via = (route.via if route else None) or observation.target.address
    neighbour = here.namespace.neighbour(via, out)
    what = f"the packet left {here.host} by {out}, and never arrived at {hop.where}"
    interface = here.namespace.by_name(out)
    if interface and (interface.encrypts or interface.vni is not None):
        kind, port = ("WireGuard", WIREGUARD_PORT) if interface.encrypts else ("VXLAN", VXLAN_PORT)
        return Finding(
            hop.where,
            f"{what}; {kind}, UDP port {port}, does not come through between the hosts",
            observation.ssh(hop.where, f"tcpdump -ni any udp port {port}, and trace again"),
        )
    if observation.host_of(via) != hop.where:
        what += f": {here.host} sends it to {observation.host_of(via) or via}"
        return Finding(hop.where, what, f"lab --stack {observation.stack} status")
    if neighbour and neighbour.mac is None:
        what += f": nobody answers ARP for {via}"
    return Finding(
        hop.where,
        f"{what}; it is lost on the network between the hosts",
        observation.ssh(hop.where, f"tcpdump -ni any host {observation.target.address}, and trace again"),
    )


def _at_target(observation: Observation, hop: Hop) -> Finding:
    host = observation.target_facts or observation.source_facts
    return _dropped(observation, host, host.request) if host.request else _not_seen(observation, hop)


def _on_the_wire(observation: Observation, hop: Hop) -> Finding:
    here = observation.source_facts
    return _dropped(observation, here, here.request) if here.request else _not_seen(observation, hop)


def _no_answer(observation: Observation, _hop: Hop) -> Finding:
    source, target, here = observation.source, observation.target, observation.source_facts
    if observation.target_facts is None:
        nat = here.request is not None and here.request.source != source.address
        note = "" if nat else f" (it went as {source.address}, which nobody outside the lab knows)"
        return Finding(
            target.name,
            f"the packet left the lab, and {observation.outcome.words}{note}",
            observation.ssh(here.host, f"ip route get {target.address}") + ", and ping it from there",
        )
    there = observation.target_facts
    if there.answer is None:
        return Finding(
            target.name,
            f"{'the container' if target.container else 'the host'} got the packet and did not answer "
            f"{observation.flow}",
            observation.ssh(
                there.host, f"docker logs --tail 20 {target.container}" if target.container else "ss -lntu"
            ),
        )
    for host in (there, here):
        if host.answer and host.answer.dropped_by:
            return _dropped(observation, host, host.answer, "the answer")
    if "sent" not in there.answer.reached and source.host:
        return _no_route(observation, there, source.address, source.host)
    return Finding(
        here.host,
        f"the answer left {there.host} by {there.answer.out_interface}, and never arrived at {source.name}",
        observation.ssh(here.host, f"tcpdump -ni any host {source.address}, and trace again"),
    )


def _dropped(
    observation: Observation, host: PathFacts, trace: PacketTrace, what: str = "the packet"
) -> Finding:
    step = trace.dropped_by
    if step is None:
        command = "nstat -az | grep -i drop"
        if observation.outputs.bpf:
            command = f"{_CALICO_NODE} -bpf counters dump --iface={trace.in_interface}"
        return Finding(
            host.host,
            f"{what} is lost in the host's kernel after it came by {trace.in_interface}, "
            "and no rule dropped it",
            observation.ssh(host.host, command),
        )
    rule = without_noise(step.rule) or f"the end of chain {step.chain}"
    if step.path:
        return Finding(
            host.host, f"{what} is dropped by {step.path}: {rule}", f"lab --stack {observation.stack} drift"
        )
    return Finding(
        host.host,
        f"{what} is dropped in table {step.table} by {rule}",
        observation.ssh(host.host, f"iptables -t {step.table} -S {step.chain}"),
    )


def _not_seen(observation: Observation, hop: Hop) -> Finding:
    return Finding(
        hop.where, f"{hop.what}: the packet did not come here", f"lab --stack {observation.stack} status"
    )


_BY_KIND: Mapping[Kind, Callable[[Observation, Hop], Finding]] = {
    "container": _in_container,
    "cali": _at_veth,
    "route": _at_route,
    "felix": _at_felix,
    "wire": _on_the_wire,
    "arrival": _on_arrival,
    "into": _at_target,
    "host": _at_target,
    "answer": _no_answer,
}
