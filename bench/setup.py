"""`python -m bench.setup [REVISION ...]`: measures the steps of a first setup, with empty caches.

Each revision (HEAD by default) is checked out and set up with caches of its own, one after the other on the
same computer. Processor seconds compare better than wall time where the computer has other load. The engine
that DOCKER_HOST names gets the base images, unless it has them.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
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
    """The time of a step."""

    name: str
    wall_s: float
    processor_s: float


def costs(lines: Iterable[str]) -> Iterator[Cost]:
    """Read the steps from the output of a setup."""
    for line in lines:
        if match := STEP.match(line.rstrip()):
            yield Cost(match["name"], float(match["wall"]), float(match["processor"] or 0))


def measure(revision: str) -> list[Cost]:
    """Set a revision up with empty caches.

    Raises:
        CalledProcessError: The setup failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch) / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", checkout, revision], cwd=ROOT, check=True)
        # With empty caches, and without this checkout's programs on PATH.
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
        start, before = time.monotonic(), _processor_s()
        try:
            with subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout  # noqa: S101 (it is a pipe)
                found = list(costs(process.stdout))
            all_steps = Cost("all", time.monotonic() - start, _processor_s() - before)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
    return [*found, all_steps]


def _processor_s() -> float:
    """The processor seconds of the children of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(measured: dict[str, list[Cost]]) -> Table:
    """Show the revisions in columns."""
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
