"""Repeated measurements in rounds: each round measures every thing once.

So whatever else loads the computer affects all things alike. A ratio is taken within a round, and the median
of the rounds' ratios is reported, because it varies less than the ratio of two medians.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Series:
    """One quantity, measured in the same rounds for several things."""

    what: str
    unit: str
    samples: Mapping[str, tuple[float, ...]]
    """One value for each round, by thing."""

    def median(self, thing: str) -> float:
        """The median of a thing's samples."""
        return median(self.samples[thing])

    def percentile(self, thing: str, percent: int) -> float:
        """A percentile of a thing's samples, of which there are two or more."""
        return quantiles(self.samples[thing], n=100, method="inclusive")[percent - 1]

    def ratio(self, thing: str, reference: str) -> float:
        """The median of a thing's ratios to a reference."""
        return median(value / of for value, of in self._pairs(thing, reference))

    def difference(self, thing: str, reference: str) -> float:
        """The median of a thing's differences from a reference."""
        return median(value - of for value, of in self._pairs(thing, reference))

    def document(self, reference: str) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "what": self.what,
            "unit": self.unit,
            "reference": reference,
            "things": {
                thing: {
                    "median": self.median(thing),
                    "ratio": self.ratio(thing, reference),
                    "samples": list(values),
                }
                for thing, values in self.samples.items()
            },
        }

    def _pairs(self, thing: str, reference: str) -> Sequence[tuple[float, float]]:
        return list(zip(self.samples[thing], self.samples[reference], strict=True))


def take(what: str, unit: str, rounds: int, things: Mapping[str, Callable[[], float]]) -> Series:
    """Measure every thing once in each round; each round starts with another thing."""
    samples: dict[str, list[float]] = {thing: [] for thing in things}
    for number in range(rounds):
        for thing in rotated(list(things), number):
            samples[thing].append(things[thing]())
    return Series(what, unit, {thing: tuple(values) for thing, values in samples.items()})


def rotated(things: Sequence[str], by: int) -> list[str]:
    """The same things in the same order, starting with another one."""
    start = by % len(things)
    return [*things[start:], *things[:start]]
