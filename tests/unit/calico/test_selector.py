"""Calico's selectors: which texts are valid, what they select, and the message about an invalid one."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.calico import selector

CASES = json.loads((Path(__file__).parent / "cases" / "selectors.json").read_text())


@pytest.mark.parametrize(("text", "labels", "selected"), CASES["selected"])
def test_parse_selects(text: str, labels: dict[str, str], selected: bool) -> None:
    assert selector.parse(text)(labels) is selected


@pytest.mark.parametrize(("text", "problem"), CASES["refused"])
def test_parse_refuses_with_the_position(text: str, problem: str) -> None:
    with pytest.raises(selector.SelectorError) as refused:
        selector.parse(text)
    assert str(refused.value).startswith(f"{text!r} is not a selector: ")
    assert problem in str(refused.value)


def test_parse_refuses_a_label_that_is_too_long() -> None:
    selector.parse(f"has({'a' * 512})")
    with pytest.raises(selector.SelectorError, match="at most 512 characters"):
        selector.parse(f"has({'a' * 513})")


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "xy"]))
ATOMS = st.sampled_from(["has(a)", "a == 'x'", "b != 'x'", "c in {'x', 'xy'}", "a starts with 'x'", "all()"])
TERMS = st.recursive(
    ATOMS,
    lambda inner: st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(
        lambda t: "({} {} {})".format(*t)
    ),
)


@settings(deadline=None)
@given(TERMS, TERMS, LABELS)
def test_parse_operators(one: str, other: str, labels: dict[str, str]) -> None:
    first, second = selector.parse(one)(labels), selector.parse(other)(labels)
    assert selector.parse(f"!{one}")(labels) is not first
    assert selector.parse(f"{one} && {other}")(labels) is (first and second)
    assert selector.parse(f"{one}||{other}")(labels) is (first or second)


@settings(deadline=None)
@given(st.text(alphabet="ab(){}!=&|,' \t'\"hasinot", max_size=20))
def test_parse_any_text(text: str) -> None:
    with contextlib.suppress(selector.SelectorError):
        assert selector.parse(text)({}) in (True, False)
