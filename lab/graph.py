"""`lab graph`: draws the lab: hosts, what runs on them, and the connections between that.

GitHub, GitLab and JupyterLab render Mermaid inside Markdown; DOT is the language of Graphviz. What is wrong
is red, and a missing connection is dashed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import click

from diagnosis import status as lab_status
from diagnosis.status import Status
from lab.verb import json_option, print_json, read_outputs

RED = "#c0392b"
PROXY, NOTEBOOK = "calico-lab-proxy", "calico-lab-notebook"


@click.command("graph")
@click.option(
    "--format",
    "language",
    type=click.Choice(["mermaid", "dot"]),
    default="mermaid",
    show_default=True,
    help="The drawing's language: Mermaid, for Markdown and notebooks, or Graphviz' DOT.",
)
@json_option
@click.pass_context
def command(context: click.Context, *, language: str, as_json: bool) -> None:
    """Draw the lab as it is now: hosts, what runs on them, and the connections between that.

    The drawing is text. GitHub, GitLab and JupyterLab render it in a Markdown file between ```mermaid and
    ```; `lab graph --format dot | dot -Tsvg` makes a picture if Graphviz is installed. What is wrong is red;
    `lab status` says why.
    """
    drawn = graph(lab_status.look(read_outputs(context.obj), context.obj))
    if as_json:
        print_json(document(drawn))
    else:
        click.echo(mermaid(drawn) if language == "mermaid" else dot(drawn))


@dataclass(frozen=True)
class Group:
    """A host, with what runs on it."""

    name: str
    label: Sequence[str]
    """Lines of text."""
    well: bool


@dataclass(frozen=True)
class Node:
    """A program or container on a host."""

    name: str
    """Unique in the graph."""
    group: str
    label: Sequence[str]
    """Lines of text."""
    well: bool


@dataclass(frozen=True)
class Edge:
    """A connection between two nodes; if `directed`, the first one opens it."""

    ends: tuple[str, str]
    """Names of nodes."""
    label: str
    well: bool
    directed: bool = False


@dataclass(frozen=True)
class Graph:
    """Everything that is drawn."""

    groups: Sequence[Group]
    nodes: Sequence[Node]
    edges: Sequence[Edge]

    def on(self, group: Group) -> Iterator[Node]:
        """Return the nodes on a host."""
        return (node for node in self.nodes if node.group == group.name)


def graph(status: Status) -> Graph:
    """Make the graph of a lab."""
    nodes = [*_members(status), *_routers(status), *_containers(status)]
    edges = [*_peers(status), *_sessions(status), *_attached(status), *_proxied(status, nodes)]
    return Graph(list(_hosts(status)), nodes, edges)


def _hosts(status: Status) -> Iterator[Group]:
    for host, facts in status.hosts.items():
        address = status.outputs.hosts.get(host, "outside the lab")
        policies = ", ".join(status.outputs.firewall.get(host, ()))
        lines = [f"{host} {address}", facts.release, f"firewall: {policies}" if policies else ""]
        yield Group(
            host,
            [line for line in lines if line] if facts.reached else [lines[0], "no answer"],
            facts.reached,
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
        well = status.hosts[host].felix_ready and status.hosts[host].driver_ready
        reflects = ["route reflector"] if host in status.outputs.route_reflectors else []
        yield Node(f"{host}/calico", host, ["Calico", *reflects], well)


def _containers(status: Status) -> Iterator[Node]:
    for host, facts in status.hosts.items():
        for container in facts.containers:
            if container.address or container.stack:
                lines = [container.name, container.address or "host's own address"]
                yield Node(
                    f"{host}/{container.name}",
                    host,
                    lines if container.healthy else [*lines, container.condition],
                    container.healthy,
                )


def _peers(status: Status) -> Iterator[Edge]:
    healthy = {host for host in status.members if (member := status.hosts[host].member) and member.healthy}
    for one, other in combinations(status.members, 2):
        yield Edge((f"{one}/etcd", f"{other}/etcd"), "", {one, other} <= healthy)


def _sessions(status: Status) -> Iterator[Edge]:
    states: dict[frozenset[str], list[str]] = {}
    for host, peer, session in status.sessions():
        # A peer that does not answer has no node.
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
    """Format the graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
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
    """Format the graph in the DOT language (https://graphviz.org/doc/info/lang.html)."""
    names = _short(drawn)
    lines = ["graph lab {", "  rankdir=LR", "  node [shape=box]"]
    for group in drawn.groups:
        lines.append(f"  subgraph cluster_{names[group.name]} {{")
        lines.append(f"    graph [label={_dot(group.label)}{_red(group.well)}]")
        # Graphviz does not draw an empty cluster.
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
    """Return the graph for programs."""
    return asdict(drawn)


def _short(drawn: Graph) -> Mapping[str, str]:
    """Short names that are valid identifiers in both languages."""
    groups = {group.name: f"m{number}" for number, group in enumerate(drawn.groups, 1)}
    return groups | {node.name: f"n{number}" for number, node in enumerate(drawn.nodes, 1)}


def _mermaid(lines: Sequence[str]) -> str:
    # Characters that end a label or begin markup are written as entity codes: # code ;.
    escaped = [re.sub(r"[^\w .,:/()\[\]-]", lambda match: f"#{ord(match[0])};", line) for line in lines]
    return '"' + "<br>".join(escaped) + '"'


def _red(well: bool) -> str:
    return "" if well else f' color="{RED}" fontcolor="{RED}"'


def _dot(lines: Sequence[str]) -> str:
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(escaped) + '"'
