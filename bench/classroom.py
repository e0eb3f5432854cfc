"""Measures a class: its `up`, the time from a click to a kernel that answers, its memory, one student more.

The reference of a click and of memory is the notebook's image in a plain container on the controller's
engine: `docker run` with the same limits, without the lab's network, proxy and TLS.
"""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import requests
import yaml
from rich.table import Table

from bench import kernel, project, samples, tables
from bench.lifecycle import BenchError
from bench.mode import file_of
from bench.project import Project
from bench.samples import Series
from diagnosis import notebooks, web
from workspace import outputs as stack
from workspace.outputs import PROJECT

STUDENTS = 30
ROUNDS = 3
"""Of `up`; clicks have a round for each student."""
LIMITS = {"memory": 384, "cpus": 0.5}
"""Of each notebook, in MiB and processors."""
PLAIN = "docker run"
CLASS = "the class"
EMPTY = "empty program"
UNCHANGED = "without a change"
ADDED = "one student added"
IMAGE = "calico-lab/notebook"
START_S = 120
_MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    hosts: int
    made: Series
    """The `up` that creates the notebooks, and that of an empty program."""
    clicks: Series
    memory: Series
    """The median of a notebook without a kernel."""
    up: Series

    @property
    def added_s(self) -> float:
        """What one student more costs beyond an `up` without a change."""
        return self.up.difference(ADDED, UNCHANGED)

    def document(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "notebooks": STUDENTS,
            "hosts": self.hosts,
            "up that creates them": self.made.document(EMPTY),
            "click to kernel": self.clicks.document(PLAIN)
            | {"95th percentile": {thing: self.clicks.percentile(thing, 95) for thing in (PLAIN, CLASS)}},
            "memory without a kernel": self.memory.document(PLAIN),
            "up": self.up.document(EMPTY),
            "one student beyond an up without a change, s": self.added_s,
        }


class Roster:
    """A lab with a roster that grows.

    Raises:
        BenchError: The config of the lab has a class of its own.
    """

    def __init__(self, name: str, folder: Path) -> None:
        file = file_of(name)
        self._roster, self._config = folder / "students.csv", folder / file.name
        self._lab = Project(PROJECT, name, config=self._config)
        self.students = 0
        document = yaml.safe_load(file.read_text())
        config = document["config"]
        if "calico-lab:notebooks" in config:
            raise BenchError(f"{file} has a section notebooks, whose saved work the bench would delete")
        # Saved work is deleted only where the state says that it may be.
        config["calico-lab:notebooks"] = {"students": str(self._roster), **LIMITS, "keepWork": False}
        config["calico-lab:proxy"] = {**config.get("calico-lab:proxy", {}), "https": "lab"}
        self._config.write_text(yaml.safe_dump(document))

    def up(self) -> float:
        """Apply the roster; return the seconds."""
        return self._lab.up()

    def add(self, students: int = 1) -> float:
        """Add students and apply the roster; return the seconds of `up`."""
        self.students += students
        self._roster.write_text("\n".join(["name", *self.names, ""]))
        return self.up()

    @property
    def names(self) -> list[str]:
        """The names of the students."""
        return [f"student{number:02}" for number in range(1, self.students + 1)]


def measure(name: str) -> Figures:
    """Measure a class in a lab that is up, and bring the lab back to its own config.

    Raises:
        BenchError: The lab has a class already, or a measurement failed.
    """
    with project.empty() as empty, TemporaryDirectory() as folder:
        roster = Roster(name, Path(folder))
        try:
            made = samples.take(
                "up", "s", 1, {EMPTY: empty.up, f"{STUDENTS} notebooks": lambda: roster.add(STUDENTS)}
            )
            outputs = stack.read(name)
            used = [facts.memory / _MIB for facts in notebooks.look(outputs)[0] if facts.name in roster.names]
            if len(used) != STUDENTS:
                raise BenchError(f"{len(used)} of {STUDENTS} notebooks answer; next: lab class")
            clicks = _clicks(name, roster, Path(folder))
            with _plain(Path(folder)):
                memory = Series("memory", "MiB", {PLAIN: (_plain_memory(),), CLASS: (median(used),)})
            up = samples.take("up", "s", ROUNDS, {EMPTY: empty.up, UNCHANGED: roster.up, ADDED: roster.add})
        finally:
            Project(PROJECT, name).up()
    return Figures(len(outputs.hosts), made, clicks, memory, up)


def _clicks(name: str, roster: Roster, folder: Path) -> Series:
    """Open each notebook of the class once, and a plain container each time."""
    outputs, tokens = stack.read(name), stack.notebook_tokens(name)
    authority = folder / "authority.pem"
    authority.write_text(outputs.proxy_authority)
    waiting = list(roster.names)

    def student() -> float:
        one = waiting.pop()
        return click(f"{outputs.proxy_url}/{one}", tokens[one], authority)

    def plain() -> float:
        with _plain(folder) as (url, token):
            return click(url, token, None)

    return samples.take("click", "s", STUDENTS, {PLAIN: plain, CLASS: student})


def click(url: str, token: str, authority: Path | None) -> float:
    """Open a notebook with its token and run a cell in a new kernel; return the seconds until it answers.

    Raises:
        BenchError: It does not answer.
    """
    began = time.monotonic()
    try:
        session = kernel.login(url, token, authority)
        with kernel.started(url, session) as running:
            kernel.execute(running, session, "1")
            return time.monotonic() - began
    except (requests.RequestException, RuntimeError) as error:
        raise BenchError(f"{url}: the kernel does not answer: {error}; next: lab class") from None


_NAME = "calico-lab-bench-notebook"


@contextmanager
def _plain(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a notebook in a plain container; provide its URL and its token, and remove it at the end."""
    token = secrets.token_hex(32)
    file = folder / "token"
    file.write_text(token)
    # For the image's user; nobody else can enter the folder.
    file.chmod(0o644)
    limits = [f"--memory={LIMITS['memory']}m", f"--cpus={LIMITS['cpus']}"]
    mount = f"--volume={file}:/run/secrets/token:ro"
    try:
        _docker("run", "--detach", "--init", f"--name={_NAME}", *limits, mount, IMAGE)
        address = _docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", _NAME).strip()
        url = f"http://{address}:8888"
        deadline = time.monotonic() + START_S
        while web.get(f"{url}/api", "").status != 200:
            if time.monotonic() > deadline:
                raise BenchError(f"{_NAME} does not answer after {START_S} s: {_docker('logs', _NAME)}")
            time.sleep(0.1)
        yield url, token
    finally:
        subprocess.run(["docker", "rm", "--force", _NAME], capture_output=True, check=False, timeout=60)


def _plain_memory() -> float:
    """MiB, as `lab class` counts them."""
    used = _docker("stats", "--no-stream", "--format", "{{.MemUsage}}", _NAME).split("MiB", maxsplit=1)[0]
    return float(used)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise BenchError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def table(measured: Figures) -> Table:
    """Show the figures."""
    made = tables.table(
        f"A class of {STUDENTS} notebooks on {measured.hosts} hosts",
        "what",
        "reference",
        "the reference",
        "the class",
        "ratio",
    )
    rows = (
        ("up that creates them, s", measured.made, EMPTY, f"{STUDENTS} notebooks"),
        ("up without a change, s", measured.up, EMPTY, UNCHANGED),
        ("up with one student more, s", measured.up, EMPTY, ADDED),
        ("click to kernel, median, s", measured.clicks, PLAIN, CLASS),
        ("memory without a kernel, MiB", measured.memory, PLAIN, CLASS),
    )
    for what, series, reference, thing in rows:
        pair = (series.median(reference), series.median(thing))
        _row(made, what, reference, pair, series.ratio(thing, reference))
    fast, slow = (measured.clicks.percentile(thing, 95) for thing in (PLAIN, CLASS))
    _row(made, "click to kernel, 95th percentile, s", PLAIN, (fast, slow), slow / fast)
    made.add_row("one student beyond an up without a change, s", "", "", f"{measured.added_s:.1f}", "")
    return made


def _row(made: Table, what: str, name: str, values: tuple[float, float], ratio: float) -> None:
    made.add_row(what, name, *(f"{value:.1f}" for value in values), f"{ratio:.2f}")
