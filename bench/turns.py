"""Measurements that take turns: what else the machine does then meets all of them alike.

A ratio is taken within a turn, and the median of the turns' ratios is told: it is steadier than the ratio of
two medians when the machine is sometimes busy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Series:
    """One quantity, measured in the same turns for several things."""

    what: str
    unit: str
    values: Mapping[str, tuple[float, ...]]
    """One value a turn, by thing."""

    def median(self, thing: str) -> float:
        """The median of a thing's values."""
        return median(self.values[thing])

    def ratio(self, thing: str, reference: str) -> float:
        """The median of a thing's ratios to a reference, each of one turn."""
        pairs = zip(self.values[thing], self.values[reference], strict=True)
        return median(value / of for value, of in pairs)

    def document(self, reference: str) -> dict[str, Any]:
        """The figures for machines."""
        return {
            "what": self.what,
            "unit": self.unit,
            "reference": reference,
            "things": {
                thing: {
                    "median": self.median(thing),
                    "ratio": self.ratio(thing, reference),
                    "turns": list(values),
                }
                for thing, values in self.values.items()
            },
        }


def take(what: str, unit: str, turns: int, things: Mapping[str, Callable[[], float]]) -> Series:
    """Measure every thing once a turn; each turn begins with the next, so that none is always first."""
    values: dict[str, list[float]] = {thing: [] for thing in things}
    for turn in range(turns):
        for thing in rotated(list(things), turn):
            values[thing].append(things[thing]())
    return Series(what, unit, {thing: tuple(measured) for thing, measured in values.items()})


def rotated(things: Sequence[str], by: int) -> list[str]:
    """The same in the same order, from another one on."""
    start = by % len(things)
    return [*things[start:], *things[:start]]
