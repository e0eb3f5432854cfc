"""Facts of one host on a packet's path: parses the output of `watch.sh`. Pure."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from components.hosts.remote import Answer
from diagnosis.facts import values_by_name
from diagnosis.trace import bpf, capture, packet_trace
from diagnosis.trace.bpf import BpfProgram, BpfRoute
from diagnosis.trace.felix import Direction, FelixVerdict
from diagnosis.trace.namespace import Interface, Namespace, Route, parse_namespace, parse_route
from diagnosis.trace.packet_trace import PacketTrace

# The comment of a chain's first rule names it: `--comment "Profile netv egress"` (felix/rules/policy.go).
_CHAIN_NAME = re.compile(
    r'-A (?P<chain>\S+) .*--comment "(?P<kind>Policy|Profile) (?P<name>.+?) (?:in|e)gress"'
)
# BIRD 2: `192.168.7.0/26 unicast [Mesh_172_16_6_218 22:37:10.123] * (100) [i]`; the next hop is on the next
# line.
_BIRD = re.compile(r"(?P<prefix>\S+)\s+\w+ \[(?P<protocol>\S+) (?P<since>[\d:-]+)")


@dataclass(frozen=True)
class BirdRoute:
    """A route in BIRD's table."""

    prefix: str
    protocol: str
    """The BIRD protocol that it came from: `Mesh_172_16_6_218`."""
    since: str


@dataclass(frozen=True)
class WorkloadEndpoint:
    """Calico's WorkloadEndpoint: its labels, which policies select, and its profiles."""

    labels: Mapping[str, str]
    profiles: Sequence[str]


Programs = Mapping[Direction, BpfProgram]


@dataclass(frozen=True)
class PathFacts:
    """The facts of one host on the path."""

    host: str
    error: str = ""
    """Why there is no complete answer."""
    request: PacketTrace | None = None
    """Trace of the packet; None if it did not come to this host."""
    answer: PacketTrace | None = None
    """Trace of the first answer; None if it did not come to this host."""
    containers: Mapping[str, Namespace] = field(default_factory=dict)
    """Network namespace of source and target, if they are containers on this host."""
    endpoints: Mapping[str, WorkloadEndpoint] = field(default_factory=dict)
    """Workload endpoint by container."""
    namespace: Namespace = field(default_factory=Namespace)
    """The host's network namespace."""
    lookup: Route | None = None
    """The route that the kernel chooses for the packet, policy routing included."""
    tunnels: Mapping[str, str] = field(default_factory=dict)
    """Host address by MAC address of a VXLAN tunnel's end."""
    bird_routes: Sequence[BirdRoute] = ()
    """BIRD's routes to source and target."""
    proxy_arp: Mapping[str, bool] = field(default_factory=dict)
    """Whether proxy ARP is on, by interface."""
    chain_names: Mapping[str, str] = field(default_factory=dict)
    """Policy or profile by chain of Felix."""
    programs: Mapping[str, tuple[Programs, Programs]] = field(default_factory=dict)
    """BPF programs by container, before the packet and after it."""
    bpf_routes: Sequence[BpfRoute] = ()
    """The route map of the BPF programs."""

    def bpf_route(self, address: str) -> BpfRoute | None:
        """Return the route map's entry for an address: the longest matching prefix."""
        matching = [one for one in self.bpf_routes if ip_address(address) in one.network]
        return max(matching, key=lambda one: one.network.prefixlen, default=None)

    def inside(self, container: str | None) -> Namespace:
        """Return a container's namespace; an empty one if it is unknown."""
        return self.containers.get(container or "", Namespace())

    def outer(self, inner: Interface | None) -> Interface | None:
        """Return the host's end of a container's veth pair."""
        return self.namespace.by_peer(inner)

    def program_verdict(self, container: str, direction: Direction, *, passed: bool) -> FelixVerdict | None:
        """Return the verdict of a container's BPF program; None if it saw no packet.

        Args:
            container: The container.
            direction: Of the packet.
            passed: Whether the packet was seen behind the program.
        """
        before, after = self.programs.get(container, ({}, {}))
        endpoint = self.endpoints.get(container)
        profiles = endpoint.profiles if endpoint else ()
        return bpf.verdict_by_programs(before.get(direction), after.get(direction), profiles, passed=passed)


def parse(host: str, answer: Answer, target: str) -> PathFacts:
    """Parse a host's answer to `watch.sh`.

    Args:
        host: The host.
        answer: Its answer.
        target: The address that the packet was sent to.
    """
    if answer.status != 0:
        return PathFacts(host, error=answer.error or f"exit status {answer.status}")
    traced, _, facts = answer.text.partition("[facts]\n")
    lines = values_by_name(facts)
    if "complete" not in lines:
        return PathFacts(host, error=answer.error or "the answer broke off")
    try:
        return _facts(host, traced, lines, target)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return PathFacts(host, error=f"the answer cannot be read: {error}")


def _facts(host: str, traced: str, lines: Mapping[str, Sequence[str]], target: str) -> PathFacts:
    traces, captured = packet_trace.parse_packet_traces(traced), _captured(lines, target)
    return PathFacts(
        host,
        request=capture.merge(captured.get("request"), traces.get("request")),
        answer=capture.merge(captured.get("answer"), traces.get("answer")),
        containers={
            name.removeprefix("/"): _namespace(lines, name)
            for name, _ in map(_pair, lines["address"])
            if name.startswith("/")
        },
        endpoints={
            name.removeprefix("/"): _endpoint(json.loads(document))
            for name, document in map(_pair, lines["endpoint"])
        },
        namespace=_namespace(lines, "host"),
        lookup=next((parse_route(one) for line in lines["lookup"] for one in json.loads(line)), None),
        tunnels={
            one["mac"]: one["dst"]
            for line in lines["fdb"]
            for one in json.loads(line)
            if "mac" in one and "dst" in one
        },
        bird_routes=[
            BirdRoute(**found.groupdict()) for line in lines["bird"] if (found := _BIRD.match(line))
        ],
        proxy_arp={name: value == "1" for name, value in map(_pair, lines["proxy-arp"])},
        chain_names=dict(_chain_name(found) for line in lines["rule"] if (found := _CHAIN_NAME.search(line))),
        programs=_programs(lines),
        bpf_routes=bpf.parse_routes(lines["bpf-route"]),
    )


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def _captured(lines: Mapping[str, Sequence[str]], target: str) -> Mapping[str, PacketTrace]:
    captures: dict[str, list[str]] = defaultdict(list)
    for namespace, line in map(_pair, lines["capture"]):
        captures[namespace].append(line)
    return capture.captured_traces(captures.pop("host", []), captures, target)


def _programs(lines: Mapping[str, Sequence[str]]) -> Mapping[str, tuple[Programs, Programs]]:
    dumps: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, value in map(_pair, lines["bpf-program"]):
        when, line = _pair(value)
        dumps[name, when].append(line)
    dropped: dict[tuple[str, str], dict[Direction, int]] = defaultdict(dict)
    for line in lines["bpf-drops"]:
        name, when, egress, ingress = line.split()
        dropped[name, when] = {"egress": int(egress), "ingress": int(ingress)}

    def at(name: str, when: str) -> Programs:
        return bpf.parse_programs(dumps[name, when], dropped[name, when])

    names = {name for name, _ in dumps}
    return {name.removeprefix("/"): (at(name, "before"), at(name, "after")) for name in names}


def _chain_name(found: re.Match[str]) -> tuple[str, str]:
    return found["chain"], f"{found['kind'].lower()} {found['name']}"


def _endpoint(document: Mapping[str, Any]) -> WorkloadEndpoint:
    labels = document["metadata"].get("labels", {})
    own = {name: value for name, value in labels.items() if not name.startswith("projectcalico.org/")}
    return WorkloadEndpoint(own, document["spec"].get("profiles", []))


def _namespace(lines: Mapping[str, Sequence[str]], namespace: str) -> Namespace:
    def objects(fact: str) -> list[dict[str, Any]]:
        values = [value for name, value in map(_pair, lines[fact]) if name == namespace]
        # `ip -json` prints an empty object for what it skips.
        return [one for value in values for one in json.loads(value) if one]

    return parse_namespace(
        objects("address"), objects("neighbour"), objects("route"), objects("vxlan"), objects("wireguard")
    )
