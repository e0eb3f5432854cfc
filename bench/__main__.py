"""`python -m bench`: take the lab down, time its way up, measure its network, and time its way down again."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import lifecycle, path
from bench.lifecycle import Part, Run
from bench.path import Comparison
from lab import stack

UNCHANGED_RUNS = 3


def measure(name: str, say: Console) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything once; return it for machines and for people."""
    say.print("taking the lab down, if it is up")
    lifecycle.run("destroy", name)
    say.print("from nothing to a notebook that answers")
    up = lifecycle.run("up", name)
    answers = up.seconds + lifecycle.until_notebook_answers(name)
    say.print("an up that changes nothing")
    unchanged = [lifecycle.run("up", name).seconds for _ in range(UNCHANGED_RUNS)]
    say.print("the network between containers, and between their hosts")
    comparisons = path.measure(stack.read(name))
    say.print("taking the lab down")
    destroy = lifecycle.run("destroy", name)

    times = {"from nothing to the notebook": answers, "up": up.seconds,
             f"up without changes (median of {UNCHANGED_RUNS})": median(unchanged),
             "destroy": destroy.seconds}  # fmt: skip
    document = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "seconds": {
            "notebook": answers,
            "up": up.seconds,
            "unchanged": unchanged,
            "destroy": destroy.seconds,
        },
        "up": [asdict(step) for step in up.steps],
        "destroy": [asdict(step) for step in destroy.steps],
        "network": [
            {**asdict(one), "host": one.host, "container": one.container, "ratio": one.ratio}
            for one in comparisons
        ],
    }
    return document, [_times(times), _parts("up", up), _parts("destroy", destroy), _network(comparisons)]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _times(times: dict[str, float]) -> Table:
    table = _table("Times", "what", "seconds")
    for what, seconds in times.items():
        table.add_row(what, f"{seconds:.1f}")
    return table


def _parts(verb: str, run: Run) -> Table:
    table = _table(
        f"Parts of {verb} ({run.seconds:.1f} s)", "component", "begins", "ends", "slowest", "seconds"
    )
    parts: Sequence[Part] = lifecycle.parts(run.steps)
    for part in parts:
        slowest = part.slowest
        table.add_row(
            part.component, f"{part.begin:.1f}", f"{part.end:.1f}", slowest.resource, f"{slowest.seconds:.1f}"
        )
    return table


def _network(comparisons: Sequence[Comparison]) -> Table:
    table = _table(
        f"Between two hosts (medians of {path.TURNS} turns)", "what", "unit", "host", "container", "ratio"
    )
    for one in comparisons:
        table.add_row(one.what, one.unit, f"{one.host:.2f}", f"{one.container:.2f}", f"{one.ratio:.2f}")
    return table


@click.command()
@click.option("--stack", "name", default="lab", show_default=True, help="The Pulumi stack of the lab.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def main(name: str, as_json: bool) -> None:
    """Measure the lab of a stack. It is taken down before and after."""
    progress = Console(stderr=True, highlight=False)
    try:
        document, tables = measure(name, progress)
    except (lifecycle.BenchError, stack.StackError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    console = Console(highlight=False)
    for table in tables:
        console.print(table)


if __name__ == "__main__":
    main()
