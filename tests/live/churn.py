"""The plan of the churn test: containers started and removed at random on all hosts, and services killed.

One seed decides what each worker does and what is killed when; the timing of the machine is not repeatable.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

WORK = Path(__file__).with_name("churn.sh").read_text()
WORKERS = 2
"""At once on each host; a start of a container keeps a processor busy."""
ALIVE = 4
"""The most containers that a worker keeps."""
CONTESTED = [f"192.168.77.{number}" for number in range(1, 7)]
"""Addresses that workers of all hosts ask for, in one block: at most one of them can have it."""
DRIVER = "calico-lab-docker-driver.service"
ENGINE = "docker.service"
ETCD = "calico-lab-etcd.service"

Kind = Literal["driver", "engine", "engine and container", "etcd", "quorum"]

# What a person expects to read when the engine goes away under a command, or another has the address already.
# Everything else is a fault.
KNOWN_ERRORS = {
    "the engine is gone": re.compile(
        r"Cannot connect to the Docker daemon|error during connect|EOF|connection reset by peer|broken pipe"
    ),
    "the driver was restarted in the middle": re.compile(
        r"Docker repeated it without its content: run the command again"
    ),
    # Docker gives a call 30 s. It repeats one whose driver was killed, and reports the last attempt.
    "the driver was killed at the end of Docker's time": re.compile(
        r"/run/docker/plugins/calico(-ipam)?\.sock: connect: (connection refused|no such file or directory)"
    ),
    "the address is taken": re.compile(r"--ip [\d.]+: taken (by|on) "),
}


@dataclass(frozen=True)
class Trouble:
    """Something that is killed."""

    after: float
    """Seconds since the trouble before."""
    kind: Kind
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A line of the plan as it went."""

    host: str
    container: str
    verb: str
    status: int
    began: int
    ended: int
    said: str

    @property
    def kind(self) -> str | None:
        """Which known error it is."""
        return next((kind for kind, pattern in KNOWN_ERRORS.items() if pattern.search(self.said)), None)


def plan(random: Random, host: str, containers: int) -> str:
    """Plan what happens on a host: so many containers are made, and most of them removed again.

    A worker keeps at most `ALIVE`; what it keeps at the end is left.
    """
    lines: list[str] = []
    for worker in range(WORKERS):
        alive: list[str] = []
        for number in range(worker, containers, WORKERS):
            while alive and (len(alive) == ALIVE or random.random() < 0.4):
                lines.append(f"{worker} remove {alive.pop(random.randrange(len(alive)))}")
            name = f"churn-{host}-{number}"
            options = f"--label org.projectcalico.label.worker={worker}"
            if random.random() < 0.1:
                options += f" --ip {random.choice(CONTESTED)}"
            if random.random() < 0.2:
                lines.append(f"{worker} once {name} {options}")
            else:
                lines.append(f"{worker} run {name} {options}")
                alive.append(name)
    return "\n".join(lines)


def troubles(random: Random, hosts: Sequence[str]) -> Iterator[Trouble]:
    """Deal out troubles without end: each deck has every kind, and every host has its share of each."""
    while True:
        chosen, *others = random.sample(hosts, len(hosts))
        deck: list[tuple[Kind, tuple[str, ...]]] = [("quorum", tuple(others))]
        for host in hosts:
            engine: Kind = "engine and container" if host == chosen else "engine"
            deck += [("driver", (host,)), ("etcd", (host,)), (engine, (host,))]
        random.shuffle(deck)
        for kind, victims in deck:
            yield Trouble(random.uniform(1, 5), kind, victims)


def read_done(host: str, text: str) -> list[Done]:
    """Read what `churn.sh` prints."""
    lines = (line.split("\t") for line in text.splitlines())
    return [
        Done(host, name, verb, int(status), int(began), int(ended), said)
        for name, verb, status, began, ended, said in lines
    ]
