"""The lab as a drawing: its machines, what is on them, and who speaks to whom. Pure: from facts to text.

Mermaid is what GitHub, GitLab and JupyterLab draw where it stands in a document; DOT is Graphviz' language.
What is not as it has to be is drawn in red, a session that is not there dashed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from diagnosis.status import Status, container_is_well, ready

RED = "#c0392b"
PROXY, NOTEBOOK = "calico-lab-proxy", "calico-lab-notebook"


@dataclass(frozen=True)
class Group:
    """A machine, with what is on it."""

    name: str
    label: Sequence[str]
    """Lines of text."""
    well: bool


@dataclass(frozen=True)
class Node:
    """Something on a machine."""

    name: str
    """Unique in the graph."""
    group: str
    label: Sequence[str]
    """Lines of text."""
    well: bool


@dataclass(frozen=True)
class Edge:
    """Two that speak to each other; the first opens the connection where `directed`."""

    ends: tuple[str, str]
    """Names of nodes."""
    label: str
    well: bool
    directed: bool = False


@dataclass(frozen=True)
class Graph:
    """All that is drawn."""

    groups: Sequence[Group]
    nodes: Sequence[Node]
    edges: Sequence[Edge]

    def on(self, group: Group) -> Iterator[Node]:
        """What is on a machine."""
        return (node for node in self.nodes if node.group == group.name)


def graph(status: Status) -> Graph:
    """Draw what was seen."""
    nodes = [*_members(status), *_routers(status), *_containers(status)]
    edges = [*_peers(status), *_sessions(status), *_attached(status), *_proxied(status, nodes)]
    return Graph(list(_machines(status)), nodes, edges)


def _machines(status: Status) -> Iterator[Group]:
    for host, seen in status.hosts.items():
        address = status.outputs.hosts.get(host, "outside the lab")
        policies = ", ".join(status.outputs.firewall.get(host, ()))
        lines = [f"{host} {address}", seen.release, f"firewall: {policies}" if policies else ""]
        yield Group(
            host, [line for line in lines if line] if seen.reached else [lines[0], "no answer"], seen.reached
        )


def _members(status: Status) -> Iterator[Node]:
    for host in status.members:
        member = status.hosts[host].member
        role = "leader" if member and member.leader else ""
        version = f"etcd {member.version}" if member and member.healthy else "etcd"
        yield Node(
            f"{host}/etcd", host, [line for line in (version, role) if line], bool(member and member.healthy)
        )


def _routers(status: Status) -> Iterator[Node]:
    for host in status.networked:
        well = ready(status.hosts[host].felix) and ready(status.hosts[host].driver)
        reflects = ["route reflector"] if host in status.outputs.route_reflectors else []
        yield Node(f"{host}/calico", host, ["Calico", *reflects], well)


def _containers(status: Status) -> Iterator[Node]:
    for host, seen in status.hosts.items():
        for container in seen.containers:
            if container.address or container.stack:
                lines = [container.name, container.address or "host's own address"]
                well = container_is_well(container)
                yield Node(
                    f"{host}/{container.name}", host, lines if well else [*lines, container.condition], well
                )


def _peers(status: Status) -> Iterator[Edge]:
    healthy = {host for host in status.members if (member := status.hosts[host].member) and member.healthy}
    for one, other in combinations(status.members, 2):
        yield Edge((f"{one}/etcd", f"{other}/etcd"), "", {one, other} <= healthy)


def _sessions(status: Status) -> Iterator[Edge]:
    states: dict[frozenset[str], list[str]] = {}
    for host, peer, session in status.sessions():
        # Nothing of a peer that does not answer is drawn.
        if peer in status.networked:
            states.setdefault(frozenset((host, peer)), []).append(
                "" if session.established else session.state
            )
    for pair, seen in states.items():
        one, other = sorted(pair)
        trouble = next(filter(None, seen), "")
        yield Edge((f"{one}/calico", f"{other}/calico"), f"BGP {trouble}".strip(), not trouble)


def _attached(status: Status) -> Iterator[Edge]:
    for host in status.networked:
        for container in status.hosts[host].containers:
            if container.address:
                yield Edge((f"{host}/{container.name}", f"{host}/calico"), status.outputs.network, well=True)


def _proxied(status: Status, nodes: Sequence[Node]) -> Iterator[Edge]:
    named = {node.name.partition("/")[2]: node.name for node in nodes}
    if PROXY in named and NOTEBOOK in named:
        well = status.notebook.status == 200
        yield Edge(
            (named[PROXY], named[NOTEBOOK]), "HTTP" if well else str(status.notebook), well, directed=True
        )


def mermaid(drawn: Graph) -> str:
    """The graph as a flowchart of Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""
    names = _short(drawn)
    lines = ["flowchart LR"]
    for group in drawn.groups:
        lines.append(f"  subgraph {names[group.name]}[{_mermaid(group.label)}]")
        lines += [f"    {names[node.name]}[{_mermaid(node.label)}]" for node in drawn.on(group)]
        lines.append("  end")
    for edge in drawn.edges:
        one, other = (names[end] for end in edge.ends)
        line = ("-->" if edge.directed else "---") if edge.well else ("-.->" if edge.directed else "-.-")
        label = f"|{_mermaid([edge.label])}|" if edge.label else ""
        lines.append(f"  {one} {line}{label} {other}")
    parts: list[Group | Node] = [*drawn.groups, *drawn.nodes]
    broken = [names[part.name] for part in parts if not part.well]
    if broken:
        lines.append(f"  classDef broken stroke:{RED},color:{RED}")
        lines.append(f"  class {','.join(broken)} broken")
    lines += [
        f"  linkStyle {number} stroke:{RED},color:{RED}"
        for number, edge in enumerate(drawn.edges)
        if not edge.well
    ]
    return "\n".join(lines)


def dot(drawn: Graph) -> str:
    """The graph in the language of Graphviz (https://graphviz.org/doc/info/lang.html)."""
    names = _short(drawn)
    lines = ["graph lab {", "  rankdir=LR", "  node [shape=box]"]
    for group in drawn.groups:
        lines.append(f"  subgraph cluster_{names[group.name]} {{")
        lines.append(f"    graph [label={_dot(group.label)}{_red(group.well)}]")
        # Graphviz draws no machine without something on it.
        lines.append(f"    {names[group.name]} [style=invis shape=point]")
        lines += [
            f"    {names[node.name]} [label={_dot(node.label)}{_red(node.well)}]" for node in drawn.on(group)
        ]
        lines.append("  }")
    for edge in drawn.edges:
        one, other = (names[end] for end in edge.ends)
        arrow = " dir=forward" if edge.directed else ""
        dashed = "" if edge.well else " style=dashed"
        lines.append(f"  {one} -- {other} [label={_dot([edge.label])}{arrow}{dashed}{_red(edge.well)}]")
    return "\n".join([*lines, "}"])


def document(drawn: Graph) -> dict[str, Any]:
    """The graph for machines."""
    return asdict(drawn)


def _short(drawn: Graph) -> Mapping[str, str]:
    """Names that every language takes."""
    groups = {group.name: f"m{number}" for number, group in enumerate(drawn.groups, 1)}
    return groups | {node.name: f"n{number}" for number, node in enumerate(drawn.nodes, 1)}


def _mermaid(lines: Sequence[str]) -> str:
    # A semicolon ends an entity code, and these stand for what ends a label or begins markup.
    escaped = [re.sub(r"[^\w .,:/()\[\]-]", lambda match: f"#{ord(match[0])};", line) for line in lines]
    return '"' + "<br>".join(escaped) + '"'


def _red(well: bool) -> str:
    return "" if well else f' color="{RED}" fontcolor="{RED}"'


def _dot(lines: Sequence[str]) -> str:
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(escaped) + '"'
