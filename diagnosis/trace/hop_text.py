"""Formats facts of a hop: interfaces, veth pairs, next hops, encapsulation, answers. Pure."""

from diagnosis.trace.felix import without_noise
from diagnosis.trace.location import Location
from diagnosis.trace.namespace import Interface, Neighbour
from diagnosis.trace.observation import Observation
from diagnosis.trace.packet_trace import PacketTrace
from diagnosis.xtables import Step


def address(interface: Interface | None, location: Location) -> str:
    """Format the address of a container, with its prefix length on the interface."""
    found = (
        [one for one in interface.addresses if one.startswith(f"{location.address}/")] if interface else []
    )
    return found[0] if found else f"{location.address} is on no interface"


def link(interface: Interface | None) -> str:
    """Format MAC address, MTU and state of an interface."""
    if interface is None:
        return "there is no such interface"
    mac = f"{interface.mac}, " if interface.mac else ""
    return f"{mac}MTU {interface.mtu}{'' if interface.up else ', DOWN'}"


def veth_pair(inner: Interface | None, outer: Interface | None) -> str:
    """Format the interface indexes of a container's veth pair, and whether they match."""
    if inner is None or outer is None:
        return "the container's interface has no other end here"
    match = "each names the other" if outer.peer == inner.index else "they do not name each other"
    return f"index {outer.index} here, {inner.index} in the container; {match}"


def next_hop(
    observation: Observation, via: str, neighbour: Neighbour | None, interface: Interface | None
) -> str:
    """Format the next hop of the source's host: its MAC address, and the host behind a tunnel."""
    here = observation.source_facts
    known = here.bpf_route(observation.target.address)
    # VXLAN's forwarding table knows the host behind a tunnel; with dataplane ebpf, the route map does.
    behind = (here.tunnels.get(neighbour.mac or "") if neighbour else None) or (known and known.host)
    host = observation.host_of(behind or via)
    through = f", behind {behind}" if behind and behind != via else ""
    name = f", that is {host}" if host else ""
    if interface and interface.encrypts:
        return f"{via}, which has the key{name}"
    return f"{neighbour or f'{via}, whose MAC address is not known'}{through}{name}"


def encapsulation(interface: Interface | None) -> str:
    """Format the encapsulation of packets that leave by an interface."""
    if interface and interface.vni is not None:
        network = f", network {interface.vni}" if interface.vni else ""
        return f"VXLAN{network}, by {interface.name}: 50 bytes of each frame are the tunnel's"
    if interface and interface.encrypts:
        return f"WireGuard, by {interface.name}: 60 bytes of each packet on the wire are the tunnel's"
    return "none: the frame carries the packet as it is"


def rule(step: Step) -> str:
    """Format the rule of a step, or its chain if the chain's policy decided."""
    return without_noise(step.rule) or step.chain


def answer(trace: PacketTrace) -> str:
    """Format the path of an answer through one host."""
    words = [f"comes by {trace.in_interface}" if trace.in_interface else "is made here"]
    if trace.out_interface:
        words.append(f"leaves by {trace.out_interface}")
    elif "sent" in trace.reached:
        words.append("is put straight into the container")
    if trace.dropped_by:
        words.append(f"is dropped by {without_noise(trace.dropped_by.rule)}")
    summary = f" ({trace.summary})" if trace.summary else ""
    return f"{', '.join(words)}{summary}"
