"""`lab`: the verbs of the operator's command.

Exit codes: 0 healthy, 1 not, 2 wrong usage or no lab to ask.
"""

import json
import sys
from collections.abc import Iterable

import click
from rich.console import Console, RenderableType

from config.loading import ConfigError
from diagnosis import status
from diagnosis.trace import ends, hops, told, walk
from diagnosis.trace.loss import loss
from lab import doctor, drift, graph, tables, welcome, why
from workspace import outputs as stack

PIPE_WIDTH = 240


class NoLab(click.ClickException):
    """There is no lab to ask."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--stack",
    "name",
    default="lab",
    envvar="CALICO_LAB_STACK",
    show_default=True,
    show_envvar=True,
    help="The Pulumi stack of the lab.",
)
@click.pass_context
def main(context: click.Context, name: str) -> None:
    """Look at a running lab. No verb changes a machine; changes go through `pulumi up`."""
    context.obj = name


def _outputs(name: str) -> stack.Outputs:
    try:
        return stack.read(name)
    except stack.StackError as error:
        raise NoLab(str(error)) from None


def _lab(name: str) -> stack.Outputs | None:
    """The outputs of a lab that is up; None where there is none yet."""
    try:
        return stack.read(name)
    except stack.StackError:
        return None


def _print(shown: Iterable[RenderableType]) -> None:
    # What is read by grep has no width to fit into.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for one in shown:
        console.print(one)


@main.command("doctor", short_help="Say whether the machines in the config can carry the lab.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Ask this machine, and those in the config that exist already, whether they can carry the lab.

    That is before the first `up`, or with more machines before the next: SSH and its host keys, release and
    Docker, memory and disk, clocks, ports and networks that are taken, routers and firewalls between the
    machines. Exit 1 when something stands in the way. Machines that `up` makes need not be asked.

    Where the lab is up already, it shows when the first certificate on each host ends, and warns 60 days
    before: `up` renews them then.
    """
    up = f"pulumi up --stack {context.obj}"
    try:
        seen = doctor.look(why.read_config(context.obj), _lab(context.obj))
    except (ConfigError, stack.StackError) as error:
        raise NoLab(str(error)) from None
    found = doctor.findings(seen)
    if as_json:
        click.echo(json.dumps(doctor.document(seen, up), indent=2))
    else:
        _print(tables.machines(seen, found, doctor.warnings(seen, up)))
    context.exit(1 if found else 0)


@main.command("status", short_help="Show the lab's health.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def status_command(context: click.Context, as_json: bool) -> None:
    """Show hosts, etcd, BGP, containers, firewall and URLs; exit 1 when something is unhealthy.

    It warns of certificates that end within 60 days, of less than 1 GiB of disk or 256 MiB of memory that is
    free on a host, and says what to do; a warning alone leaves the exit code at 0.
    """
    seen = status.look(_outputs(context.obj), context.obj)
    found = status.findings(seen)
    if as_json:
        click.echo(json.dumps(status.document(seen), indent=2))
    else:
        _print(tables.tables(seen, found, status.warnings(seen)))
    context.exit(1 if found else 0)


@main.command("graph", short_help="Draw the lab.")
@click.option(
    "--format",
    "language",
    type=click.Choice(["mermaid", "dot"]),
    default="mermaid",
    show_default=True,
    help="The drawing's language: Mermaid, for Markdown and notebooks, or Graphviz' DOT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def graph_command(context: click.Context, *, language: str, as_json: bool) -> None:
    """Draw the lab as it is now: machines, what is on them, and who speaks to whom.

    The drawing is text: in a Markdown file between ```mermaid and ``` it is drawn by GitHub, GitLab and
    JupyterLab; `lab graph --format dot | dot -Tsvg` makes a picture where Graphviz is. What is not as it has
    to be is red; `lab status` says why.
    """
    drawn = graph.graph(status.look(_outputs(context.obj), context.obj))
    if as_json:
        click.echo(json.dumps(graph.document(drawn), indent=2))
    else:
        click.echo(graph.mermaid(drawn) if language == "mermaid" else graph.dot(drawn))


@main.command("why", short_help="Say what becomes of a packet, and which rule decides.")
@click.argument("source")
@click.argument("destination")
@click.argument("flow", metavar="PROTO/PORT")
@click.option("--published", is_flag=True, help="It goes to a container's published port.")
@click.option("--live", is_flag=True, help="Send one, and see what the host's kernel does with it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def why_command(
    context: click.Context,
    *,
    source: str,
    destination: str,
    flow: str,
    published: bool,
    live: bool,
    as_json: bool,
) -> None:
    """Say what becomes of the first packet of a flow by the firewall policies in the config.

    SOURCE is a machine of the lab, `operator` or an address; DESTINATION is a host; PROTO/PORT is like
    tcp/2380, icmp or icmp/echo-request.

    With --live, SOURCE opens such a connection once a second and sends nothing on it (by UDP an empty line
    goes), and DESTINATION lists every rule that one of the packets meets, and the deciding rule's counters.
    Where SOURCE is just an address, or the packet neither TCP, UDP nor an echo-request, one has to come by
    itself. For these five seconds the host's nftables has a table calico-lab-trace: it marks the packets,
    decides nothing, and goes when the trace ends, also when the SSH session is cut. Exit 1 when the host has
    no answer, or another than the config.
    """
    try:
        explanation = why.answer(why.read_config(context.obj), source, destination, flow, published=published)
        seen = why.look(explanation, _outputs(context.obj), source, destination) if live else None
    except (ConfigError, stack.StackError) as error:
        raise NoLab(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    problem = why.finding(explanation, seen, context.obj) if seen else None
    if as_json:
        click.echo(json.dumps(why.document(explanation, seen, problem), indent=2))
    else:
        click.echo("\n".join(why.text(explanation, seen, problem)))
    context.exit(1 if problem else 0)


@main.command("trace", short_help="Walk a packet's way from a container, hop by hop.")
@click.argument("source", metavar="CONTAINER")
@click.argument("target", metavar="CONTAINER|HOST|ADDRESS")
@click.argument("flow", metavar="[PROTO/PORT]", default="icmp")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def trace_command(context: click.Context, *, source: str, target: str, flow: str, as_json: bool) -> None:
    """Send a packet from a container, and tell its way hop by hop, with the facts that make it so.

    A container is meant by its name, by HOST/NAME where several have that name, or by its address on the
    lab's network. PROTO/PORT is like tcp/8888 or udp/53; without it, echo-requests are sent.

    While the packet is on its way, the hosts at both ends have an nftables table calico-lab-trace: it marks
    the packet and its answer, decides nothing, and goes with the process that made it, however that ends.
    With dataplane ebpf, tcpdump listens on the interfaces too: programs hand packets on past netfilter.

    Exit 1 when the packet or its answer is lost: the last lines say where, why, and what to do next.
    """
    try:
        walked = walk.look(_outputs(context.obj), context.obj, source, target, walk.flow(flow))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except ends.NoWayError as error:
        click.echo(
            json.dumps(told.refusal(error.finding)) if as_json else "\n".join(told.ending(error.finding))
        )
        context.exit(1)
    way = hops.hops(walked)
    lost = loss(walked, way)
    if as_json:
        click.echo(json.dumps(told.document(walked, way, lost), indent=2))
    else:
        click.echo("\n".join(told.text(walked, way, lost)))
    context.exit(1 if lost else 0)


@main.command("drift", short_help="Compare the hosts' firewall rules with what was applied.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def drift_command(context: click.Context, as_json: bool) -> None:
    """Compare the firewall rules on each host with what was applied, rule by rule, and print their counters.

    Exit 1 when a host differs, or does not answer. It repairs nothing: `pulumi up --refresh` does.
    """
    outputs = _outputs(context.obj)
    try:
        applied = stack.resources(context.obj, "HostFirewall")
    except stack.StackError as error:
        raise NoLab(str(error)) from None
    hosts = drift.look(outputs, applied)
    if as_json:
        click.echo(json.dumps(drift.document(hosts), indent=2))
    else:
        click.echo("\n".join(drift.text(hosts, context.obj)))
    context.exit(0 if all(rules.sound for rules in hosts) else 1)


@main.command("welcome", short_help="Say how the lab is used.")
@click.pass_context
def welcome_command(context: click.Context) -> None:
    """Say how the lab is used: its URLs and the commands that reach its machines."""
    click.echo(welcome.text(_outputs(context.obj), context.obj))


if __name__ == "__main__":
    main()
