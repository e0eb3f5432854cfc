"""Property values: conversion and comparison."""

import pytest
from command_plugin import properties
from command_plugin.properties import ASSET, SIGNATURE, UNKNOWN, Change, Properties, Secret, Value
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

leaves = st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just(UNKNOWN)
names = st.text(min_size=1, max_size=5)
values: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3) | inner.map(Secret),
    max_leaves=10,
)
maps: st.SearchStrategy[Properties] = st.dictionaries(names, values, max_size=4)


@given(maps)
def test_read_write_roundtrip(given: Properties) -> None:
    assert properties.same(properties.read(properties.write(given)), given)


@given(maps)
def test_changes_same_value(given: Properties) -> None:
    assert properties.changes(given, given) == {}


@given(maps, maps)
def test_changes_agree_with_same(old: Properties, new: Properties) -> None:
    assert bool(properties.changes(old, new)) is not properties.same(old, new)


@given(maps, maps)
def test_changes_paths_symmetric(old: Properties, new: Properties) -> None:
    assert properties.changes(old, new).keys() == properties.changes(new, old).keys()


def test_read_null() -> None:
    message = properties.write({"a": {"b": "c"}})
    message.fields["a"].struct_value.fields["n"].null_value = struct_pb2.NULL_VALUE
    message.fields["n"].null_value = struct_pb2.NULL_VALUE
    assert properties.read(message) == {"a": {"b": "c"}}


@pytest.mark.parametrize("wire", sorted(properties.UNKNOWNS))
def test_read_unknown(wire: str) -> None:
    assert properties.read(properties.write({"x": wire})) == {"x": UNKNOWN}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": {"b c": 1.0}}, {"a": {"b c": 2.0}}, {'a["b c"]': Change.UPDATE}),
        ({"a": {'"': 1.0}}, {"a": {}}, {'a["\\""]': Change.DELETE}),
        ({"a": [[1.0]]}, {"a": [[1.0, 2.0]]}, {"a[0][1]": Change.ADD}),
        ({"a": [1.0]}, {"a": "x"}, {"a": Change.UPDATE}),
        ({"a": 1.0}, {"a": True}, {"a": Change.UPDATE}),
        (
            {"a": {SIGNATURE: ASSET, "path": "x", "hash": "1"}},
            {"a": {SIGNATURE: ASSET, "path": "x", "hash": "2"}},
            {"a": Change.UPDATE},
        ),
    ],
)
def test_changes_paths(old: Properties, new: Properties, expected: dict[str, Change]) -> None:
    assert properties.changes(old, new) == expected
