"""Who installed a route on a host, and what a student can learn from it. Pure."""

from collections.abc import Iterator
from ipaddress import IPv4Network

from diagnosis.facts import Session, peer_of
from diagnosis.trace.namespace import Route
from diagnosis.trace.observation import Observation
from diagnosis.trace.path_facts import BirdRoute, PathFacts

# Route protocol number of Felix (felix/dataplane/linux/dataplanedefs).
_FELIX = "80"


def origin(seen: Observation, host: PathFacts, route: Route) -> Iterator[tuple[str, str]]:
    """Say who installed a route, as named facts of a hop."""
    if route.protocol == "bird" and route.via:
        peer, session = bgp_session(seen, host, route)
        state = f"{session.state} since {session.since}" if session else "not known to BIRD"
        yield "from", f"BIRD, by BGP from {peer}: {state}"
        if learnt := _bird_route(host, route):
            yield "learnt", f"{learnt.protocol} at {learnt.since}"
    elif _is_vxlan(host, route):
        yield "from", "Felix, which knows each host's blocks from Calico's datastore"
    elif route.interface and route.interface.startswith("cali"):
        yield "from", "the Docker driver, when the container started"
    elif route.kind != "unicast":
        yield (
            "from",
            {"bird": "BIRD, for this host's own block", _FELIX: "Felix, for this host's own block"}.get(
                route.protocol, "the lab: an address without a route from another host is unreachable"
            ),
        )
    elif route.prefix != "default":
        yield "from", f"the kernel: {route.interface} has an address of that network"


def bgp_session(seen: Observation, host: PathFacts, route: Route) -> tuple[str, Session | None]:
    """Return the peer that announced a route (its name, if it is a host), and the BGP session with it.

    The peer is not always the next hop: a route reflector announces the blocks of other hosts.
    """
    learnt = _bird_route(host, route)
    peer = (peer_of(learnt.protocol) if learnt else None) or route.via or ""
    return seen.host_of(peer) or peer, seen.hosts[host.host].sessions.get(peer)


def lesson(host: PathFacts, route: Route | None) -> str:
    """Return what can be learnt from a route."""
    if route is None or route.kind != "unicast":
        return (
            "No host announces a route to this address. "
            "The packet is dropped here, and does not leave the lab."
        )
    if route.interface and route.interface.startswith("cali"):
        return "The container is on this host: the route leads into its veth pair."
    if route.protocol == "bird":
        return "By BGP, each host announces the blocks of its containers' addresses to the others."
    if _is_vxlan(host, route):
        return "Each host's blocks have a route into the tunnel; its next hop is that host's end of it."
    if route.prefix != "default":
        return "The address is in the hosts' own network: no router is needed, and ARP finds it."
    return "The address is not in the lab: the host sends it to its default router."


def _bird_route(host: PathFacts, route: Route) -> BirdRoute | None:
    return next((one for one in host.bird_routes if IPv4Network(one.prefix) == route.network), None)


def _is_vxlan(host: PathFacts, route: Route) -> bool:
    interface = host.namespace.by_name(route.interface)
    return interface is not None and interface.vni is not None
