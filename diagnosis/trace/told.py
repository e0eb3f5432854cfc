"""A walk as people read it, and as machines do. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from diagnosis.status import Finding
from diagnosis.trace.hops import Hop
from diagnosis.trace.walk import Walk

_NAME_WIDTH = 14


def text(walk: Walk, told: Sequence[Hop], lost: Finding | None) -> Iterator[str]:
    """The walk for people, a line at a time."""
    yield f"{walk.flow} from {walk.source} to {walk.target}"
    for number, hop in enumerate(told, 1):
        yield ""
        yield f"{number:>2}  {hop.where}: {hop.what}{'' if hop.seen else '   <-- lost here'}"
        yield from (f"    {name:<{_NAME_WIDTH}}{value}" for name, value in hop.facts)
        yield f"    {hop.lesson}"
    yield ""
    if lost:
        yield from ending(lost)
    else:
        answer = ", and so does its answer" if told[-1].kind == "answer" else ""
        yield f"It arrives{answer}: {walk.outcome.words}."


def ending(lost: Finding) -> Iterator[str]:
    """Where the way ends too early, for people."""
    yield f"{lost.where}: {lost.what}"
    yield f"    next: {lost.next}"


def refusal(lost: Finding) -> dict[str, Any]:
    """A way that does not even begin, for machines."""
    return {"hops": [], "arrived": False, "finding": asdict(lost)}


def document(walk: Walk, told: Sequence[Hop], lost: Finding | None) -> dict[str, Any]:
    """The walk for machines."""
    return {
        "flow": str(walk.flow),
        "source": {**asdict(walk.source), "name": walk.source.name},
        "target": {**asdict(walk.target), "name": walk.target.name},
        "hops": [{**asdict(hop), "facts": dict(hop.facts)} for hop in told],
        "outcome": walk.outcome.words,
        "arrived": lost is None,
        "finding": asdict(lost) if lost else None,
    }
