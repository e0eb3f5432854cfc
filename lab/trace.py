"""`lab trace`: sends a packet from a container, and reports its path hop by hop, or where it was lost."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from diagnosis.finding import Finding
from diagnosis.trace.flow import parse_flow
from diagnosis.trace.hops import Hop, hops
from diagnosis.trace.location import NoNetworkError
from diagnosis.trace.loss import loss
from diagnosis.trace.observation import Observation, observe
from lab.completion import complete_container, complete_target
from lab.verb import json_option, print_json, print_lines, read_outputs

_NAME_WIDTH = 14


@click.command("trace")
@click.argument("source", metavar="CONTAINER", shell_complete=complete_container)
@click.argument("target", metavar="CONTAINER|HOST|ADDRESS", shell_complete=complete_target)
@click.argument("flow", metavar="[PROTO/PORT]", default="icmp")
@json_option
@click.pass_context
def command(context: click.Context, *, source: str, target: str, flow: str, as_json: bool) -> None:
    """Send a packet from a container, and report its path hop by hop, with the facts behind each hop.

    A container is named by its name, by HOST/NAME if several have that name, or by its address on the lab's
    network. PROTO/PORT is like tcp/8888 or udp/53; without it, echo-requests are sent.

    Meanwhile the hosts at both ends have an nftables table calico-lab-trace: it marks the packet and its
    answer, has no verdict, and goes with the process that made it, however that ends. With dataplane ebpf,
    tcpdump listens on the interfaces too, because BPF programs forward packets past netfilter.

    Exit 1 when the packet or its answer is lost: the last lines say where, why, and what to do next.
    """
    try:
        observation = observe(read_outputs(context.obj), context.obj, source, target, parse_flow(flow))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except NoNetworkError as error:
        if as_json:
            print_json({"hops": [], "arrived": False, "finding": asdict(error.finding)})
        else:
            print_lines(error.finding.lines())
        context.exit(1)
    path = hops(observation)
    lost = loss(observation, path)
    if as_json:
        print_json(document(observation, path, lost))
    else:
        print_lines(text(observation, path, lost))
    context.exit(1 if lost else 0)


def text(observation: Observation, path: Sequence[Hop], lost: Finding | None) -> Iterator[str]:
    """Format the path as text."""
    yield f"{observation.flow} from {observation.source} to {observation.target}"
    for number, hop in enumerate(path, 1):
        yield ""
        yield f"{number:>2}  {hop.where}: {hop.what}{'' if hop.seen else '   <-- lost here'}"
        yield from (f"    {name:<{_NAME_WIDTH}}{value}" for name, value in hop.facts)
        yield f"    {hop.lesson}"
    yield ""
    if lost:
        yield from lost.lines()
    else:
        answer = ", and so does its answer" if path[-1].kind == "answer" else ""
        yield f"It arrives{answer}: {observation.outcome.words}."


def document(observation: Observation, path: Sequence[Hop], lost: Finding | None) -> dict[str, Any]:
    """Return the path for programs."""
    source, target = observation.source, observation.target
    return {
        "flow": str(observation.flow),
        "source": {**asdict(source), "name": source.name},
        "target": {**asdict(target), "name": target.name},
        "hops": [{**asdict(hop), "facts": dict(hop.facts)} for hop in path],
        "outcome": observation.outcome.words,
        "arrived": lost is None,
        "finding": asdict(lost) if lost else None,
    }
