"""Samples of rounds, and the figures that are made from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import samples
from bench.samples import Series


def test_ratio_and_difference_are_taken_within_a_round() -> None:
    series = Series("throughput", "Gbit/s", {"limit": (10, 5, 20), "lab": (9, 4, 19)})
    assert (series.median("limit"), series.median("lab")) == (10, 9)
    assert series.ratio("lab", "limit") == pytest.approx(0.9)
    assert series.difference("lab", "limit") == -1


def test_take_starts_each_round_with_another_thing() -> None:
    order: list[str] = []

    def measured(thing: str) -> float:
        order.append(thing)
        return len(order)

    things = {name: (lambda name=name: measured(name)) for name in "abc"}
    series = samples.take("order", "", 3, things)
    assert "".join(order) == "abcbcacab"
    assert series.samples == {"a": (1, 6, 8), "b": (2, 4, 9), "c": (3, 5, 7)}


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9))
def test_ratio_to_itself_is_one(values: list[float]) -> None:
    series = Series("what", "unit", {"one": tuple(values)})
    assert series.ratio("one", "one") == 1
    assert min(values) <= series.median("one") <= max(values)


def test_percentile() -> None:
    series = Series("click", "s", {"class": tuple(range(101))})
    assert series.percentile("class", 95) == 95
    assert series.percentile("class", 50) == series.median("class")


def test_document_has_every_sample() -> None:
    series = Series("round trip", "µs", {"limit": (40.0, 50.0), "lab": (44.0, 55.0)})
    assert series.document("limit") == {
        "what": "round trip",
        "unit": "µs",
        "reference": "limit",
        "things": {
            "limit": {"median": 45.0, "ratio": 1.0, "samples": [40.0, 50.0]},
            "lab": {"median": 49.5, "ratio": pytest.approx(1.1), "samples": [44.0, 55.0]},
        },
    }
