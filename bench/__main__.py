"""`python -m bench`: take the lab down, time its way up, measure its network, and time its way down again.

Each subject has a module with `measure`, which asks the lab, and `table`, which shows what it was told.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench import addresses, firewall, lifecycle, mode, path, start, tables
from bench.bare import BareError
from bench.guests import GuestError
from bench.lifecycle import Part, Run
from bench.mode import Mode
from workspace import outputs as stack

UNCHANGED_RUNS = 3
OTHERS = (Mode(dataplane="ebpf"), Mode(encapsulation="vxlan"))
"""The modes that are measured beside the lab's own."""


def measure(name: str, say: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything once; return it for machines and for people."""
    say.print("taking the lab down, if it is up")
    lifecycle.run("destroy", name)
    say.print("from nothing to a notebook that answers")
    up = lifecycle.run("up", name)
    answers = up.seconds + lifecycle.until_notebook_answers(name)
    say.print("an up that changes nothing")
    unchanged = [lifecycle.run("up", name).seconds for _ in range(UNCHANGED_RUNS)]
    network, network_tables = measure_network(name, say)
    rules, rules_tables = measure_firewall(name, say)
    say.print("taking the lab down")
    destroy = lifecycle.run("destroy", name)

    times = {"from nothing to the notebook": answers, "up": up.seconds,
             f"up without changes (median of {UNCHANGED_RUNS})": median(unchanged),
             "destroy": destroy.seconds}  # fmt: skip
    document = {
        "machine": machine(),
        "seconds": {
            "notebook": answers,
            "up": up.seconds,
            "unchanged": unchanged,
            "destroy": destroy.seconds,
        },
        "up": [asdict(step) for step in up.steps],
        "destroy": [asdict(step) for step in destroy.steps],
        "network": network,
        "firewall": rules,
    }
    shown = [_times(times), _parts("up", up), _parts("destroy", destroy), *network_tables, *rules_tables]
    return document, shown


def measure_network(name: str, say: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure the network of a lab that is up, and leave it as it was."""
    outputs = stack.read(name)
    own = mode.configured(mode.file_of(name))
    say.print("the paths of the network")
    plain = path.measure(outputs, own)
    say.print("the start of a container")
    starts = start.measure(outputs)
    say.print("the start of a container on the engine of today, which may have to be built")
    today = start.measure_today()
    say.print("addresses")
    assigned = addresses.measure(outputs)
    document = {
        "paths": {str(own): plain.document()},
        "start": starts.document(start.REFERENCE),
        "start on the engine of today": today.document(start.REFERENCE),
        "addresses": assigned.document(addresses.ALONE),
    }
    shown = [path.table(plain)]
    for other in OTHERS:
        if other == own:
            continue
        say.print(f"the network with {other}, and back")
        with mode.switched(name, other):
            measured = path.measure(outputs, other, all_paths=False)
        document["paths"][str(other)] = measured.document()
        shown.append(path.table(measured))
    started = [start.table(starts, "the hosts' engine"), start.table(today, "the engine of today")]
    return document, [*shown, *started, addresses.table(assigned)]


def measure_firewall(name: str, say: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure the firewall of a lab that is up, and leave it as it was."""
    say.print(f"a firewall with {firewall.SOURCES} sources")
    costs = firewall.measure(name, stack.read(name))
    return costs.document(), [firewall.table(costs)]


OF_A_LAB_THAT_IS_UP = {"network": measure_network, "firewall": measure_firewall}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpus": os.cpu_count(), "kernel": platform.release()}


def _times(times: dict[str, float]) -> Table:
    table = tables.table("Times", "what", "seconds")
    for what, seconds in times.items():
        table.add_row(what, f"{seconds:.1f}")
    return table


def _parts(verb: str, run: Run) -> Table:
    table = tables.table(
        f"Parts of {verb} ({run.seconds:.1f} s)", "component", "begins", "ends", "slowest", "seconds"
    )
    parts: Sequence[Part] = lifecycle.parts(run.steps)
    for part in parts:
        slowest = part.slowest
        table.add_row(
            part.component, f"{part.begin:.1f}", f"{part.end:.1f}", slowest.resource, f"{slowest.seconds:.1f}"
        )
    return table


@click.command()
@click.option("--stack", "name", default="lab", show_default=True, help="The Pulumi stack of the lab.")
@click.option("--only", type=click.Choice(list(OF_A_LAB_THAT_IS_UP)), help="Only this, of a lab that is up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def main(name: str, only: str | None, as_json: bool) -> None:
    """Measure the lab of a stack. It is taken down before and after."""
    progress = Console(stderr=True, highlight=False)
    try:
        if only:
            figures, shown = OF_A_LAB_THAT_IS_UP[only](name, progress)
            document = {"machine": machine(), only: figures}
        else:
            document, shown = measure(name, progress)
    except (lifecycle.BenchError, stack.StackError, GuestError, BareError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    console = Console(highlight=False)
    for table in shown:
        console.print(table)


if __name__ == "__main__":
    main()
