"""`python -m bench`: destroys the lab, creates it again, measures it, and destroys it at the end.

Each subject has a module with `measure`, which returns the figures, and `table`, which shows them.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench import addresses, classroom, firewall, lifecycle, mode, path, program, project, start, tables
from bench.bare import BareError
from bench.guests import GuestError
from bench.lifecycle import Part, Run
from bench.mode import Mode
from workspace import outputs as stack

OTHERS = (Mode(dataplane="ebpf"), Mode(encapsulation="vxlan"))
"""The modes that are measured in addition to the lab's own."""


def measure(name: str, progress: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; return the figures as JSON and as tables."""
    progress.print("destroying the lab, if it is up")
    lifecycle.run("destroy", name)
    progress.print("from nothing to a notebook that answers")
    with project.empty() as empty:
        reference = [empty.up()]
        up = lifecycle.run("up", name)
        answers = up.seconds + lifecycle.until_notebook_answers(name)
        reference.append(empty.up())
    figures, program_tables = measure_program(name, progress)
    network, network_tables = measure_network(name, progress)
    rules, rules_tables = measure_firewall(name, progress)
    students, class_tables = measure_class(name, progress)
    progress.print("destroying the lab")
    destroy = lifecycle.run("destroy", name)

    times = {"from nothing to the notebook": answers, "up": up.seconds, "destroy": destroy.seconds}
    document = {
        "computer": computer(),
        "seconds": {
            "notebook": answers,
            "up": up.seconds,
            "destroy": destroy.seconds,
            "up of an empty program": reference,
        },
        "program": figures,
        "up": [asdict(step) for step in up.steps],
        "destroy": [asdict(step) for step in destroy.steps],
        "network": network,
        "firewall": rules,
        "class": students,
    }
    shown = [
        _times(times, mean(reference)),
        *program_tables,
        _parts("up", up),
        _parts("destroy", destroy),
        *network_tables,
        *rules_tables,
        *class_tables,
    ]
    return document, shown


def measure_program(name: str, progress: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure the program of a lab that is up, and leave the lab as it was."""
    progress.print("the program, relative to an empty one")
    figures = program.measure(name)
    return figures.document(), program.tables_of(figures)


def measure_network(name: str, progress: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure the network of a lab that is up, and leave it as it was."""
    outputs = stack.read(name)
    own = mode.configured(mode.file_of(name))
    progress.print("the paths of the network")
    plain = path.measure(outputs, own)
    progress.print("the start of a container")
    starts = start.measure(outputs)
    progress.print("the start of a container on the current engine, which is built the first time")
    current = start.measure_current_engine()
    progress.print("addresses")
    assigned = addresses.measure(outputs)
    document = {
        "paths": {str(own): plain.document()},
        "start": starts.document(start.REFERENCE),
        "start on the current engine": current.document(start.REFERENCE),
        "addresses": assigned.document(addresses.ALONE),
    }
    shown = [path.table(plain)]
    for other in OTHERS:
        if other == own:
            continue
        progress.print(f"the network with {other}")
        with mode.switched(name, other):
            measured = path.measure(outputs, other, all_paths=False)
        document["paths"][str(other)] = measured.document()
        shown.append(path.table(measured))
    started = [start.table(starts, "the hosts' engine"), start.table(current, "the current engine")]
    return document, [*shown, *started, addresses.table(assigned)]


def measure_firewall(name: str, progress: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure the firewall of a lab that is up, and leave it as it was."""
    progress.print(f"a firewall with {firewall.SOURCES} sources")
    costs = firewall.measure(name, stack.read(name))
    return costs.document(), [firewall.table(costs)]


def measure_class(name: str, progress: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure a class in a lab that is up and has none, and leave the lab as it was."""
    progress.print(f"a class of {classroom.STUDENTS} notebooks")
    measured = classroom.measure(name)
    return measured.document(), [classroom.table(measured)]


OF_A_LAB_THAT_IS_UP = {
    "program": measure_program,
    "network": measure_network,
    "firewall": measure_firewall,
    "class": measure_class,
}


def computer() -> dict[str, Any]:
    """The computer on which the figures were measured."""
    return {"cpus": os.cpu_count(), "kernel": platform.release()}


def _times(times: dict[str, float], reference: float) -> Table:
    table = tables.table(f"Times (ratios to: up of an {program.EMPTY})", "what", "seconds", "ratio")
    for what, seconds in times.items():
        table.add_row(what, f"{seconds:.1f}", f"{seconds / reference:.1f}")
    return table


def _parts(verb: str, run: Run) -> Table:
    table = tables.table(
        f"Parts of {verb} ({run.seconds:.1f} s)", "component", "starts", "ends", "slowest", "seconds"
    )
    parts: Sequence[Part] = lifecycle.parts(run.steps)
    for part in parts:
        slowest = part.slowest
        table.add_row(
            part.component, f"{part.start:.1f}", f"{part.end:.1f}", slowest.resource, f"{slowest.seconds:.1f}"
        )
    return table


@click.command()
@click.option("--stack", "name", default="lab", show_default=True, help="The Pulumi stack of the lab.")
@click.option(
    "--only", type=click.Choice(list(OF_A_LAB_THAT_IS_UP)), help="Measure only this, of a lab that is up."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(name: str, only: str | None, as_json: bool) -> None:
    """Measure the lab of a stack. It is destroyed before and after, except with --only."""
    progress = Console(stderr=True, highlight=False)
    try:
        if only:
            figures, shown = OF_A_LAB_THAT_IS_UP[only](name, progress)
            document = {"computer": computer(), only: figures}
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
