"""`python -m bench.setup [REVISION ...]`: what a first setup costs, from empty caches, step by step.

Each revision is checked out, and set up with caches of its own, one after the other on the same machine: so
they can be compared. Processor seconds are the fairer figure where others use the machine, too. Without a
revision it is the last commit. The engine that DOCKER_HOST names gets the base images, unless it has them.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(
    r"\[\d+/\d+\] (?P<name>[^:]+): .* \((?P<wall>[\d.]+) s(?:, (?P<processor>\d+) s of processor time)?\)$"
)


@dataclass(frozen=True)
class Cost:
    """What a step took."""

    name: str
    wall_s: float
    processor_s: float


def costs(lines: Iterator[str], processor: Iterator[float]) -> Iterator[Cost]:
    """Read the steps from what a setup says.

    Args:
        lines: What it says.
        processor: The processor seconds that it has used, each time that a step ends; they count for steps
            that do not tell their own, which revisions have that do one step at a time.
    """
    before = 0.0
    for line in lines:
        if match := STEP.match(line.rstrip()):
            used = next(processor)
            own = match["processor"]
            yield Cost(match["name"], float(match["wall"]), float(own) if own else used - before)
            before = used


def used_by_children(process: int) -> Iterator[float]:
    """The processor seconds of the children that a process has waited for, each time it is asked."""
    tick = os.sysconf("SC_CLK_TCK")
    while True:
        # See proc(5): cutime and cstime; the second field, a name in parentheses, may have blanks.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        yield (int(fields[13]) + int(fields[14])) / tick


def measure(revision: str) -> list[Cost]:
    """Set a revision up from nothing.

    Raises:
        CalledProcessError: It cannot be set up.
    """
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch) / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", checkout, revision], cwd=ROOT, check=True)
        # The programs are not on PATH already, and none of the caches has anything.
        environment = {
            **os.environ,
            **{name: f"{scratch}/{name}" for name in ("CALICO_LAB_CACHE", "GOCACHE", "GOMODCACHE")},
            "GOFLAGS": "-modcacherw",
            "PATH": os.pathsep.join(
                folder for folder in os.get_exec_path() if not Path(folder).is_relative_to(ROOT)
            ),
        }
        for name in ("PULUMI_HOME", "PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"):
            environment.pop(name, None)
        command = ["python3", "-m", "workspace", "setup"]
        start = time.monotonic()
        try:
            with subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout  # noqa: S101 (it is a pipe)
                found = list(costs(iter(process.stdout), used_by_children(process.pid)))
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
    total = sum(cost.processor_s for cost in found)
    return [*found, Cost("all", time.monotonic() - start, total)]


def table(measured: dict[str, list[Cost]]) -> Table:
    """Show the revisions side by side."""
    shown = Table("step", title="a first setup, from empty caches")
    for revision in measured:
        shown.add_column(f"{revision}: processor, wall [s]", justify="right")
    names = dict.fromkeys(cost.name for found in measured.values() for cost in found)
    for name in names:
        cells = [next((cost for cost in found if cost.name == name), None) for found in measured.values()]
        shown.add_row(name, *(f"{c.processor_s:.0f}, {c.wall_s:.0f}" if c else "" for c in cells))
    return shown


def main() -> None:
    """Measure the revisions of the command line."""
    revisions = sys.argv[1:] or ["HEAD"]
    Console().print(table({revision: measure(revision) for revision in revisions}))


if __name__ == "__main__":
    main()
