"""Values on the wire, and compared."""

from pathlib import Path

import pytest
from command_plugin import local, properties
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
def test_what_is_written_is_read_again(given: Properties) -> None:
    assert properties.same(properties.read(properties.write(given)), given)


@given(maps)
def test_a_value_has_not_changed_from_itself(given: Properties) -> None:
    assert properties.changes(given, given) == {}


@given(maps, maps)
def test_there_are_changes_where_values_are_not_the_same(old: Properties, new: Properties) -> None:
    assert bool(properties.changes(old, new)) is not properties.same(old, new)


@given(maps, maps)
def test_the_way_back_has_the_same_paths(old: Properties, new: Properties) -> None:
    assert properties.changes(old, new).keys() == properties.changes(new, old).keys()


def test_nulls_are_left_out() -> None:
    message = properties.write({"a": {"b": "c"}})
    message.fields["a"].struct_value.fields["n"].null_value = struct_pb2.NULL_VALUE
    message.fields["n"].null_value = struct_pb2.NULL_VALUE
    assert properties.read(message) == {"a": {"b": "c"}}


@pytest.mark.parametrize("wire", sorted(properties.UNKNOWNS))
def test_every_kind_of_unknown_is_read(wire: str) -> None:
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
            {"a": {SIGNATURE: ASSET, "text": "x"}},
            {"a": {SIGNATURE: ASSET, "text": "y"}},
            {"a": Change.UPDATE},
        ),
    ],
)
def test_changes_are_told_by_path(old: Properties, new: Properties, expected: dict[str, Change]) -> None:
    assert properties.changes(old, new) == expected


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*", ["a", "a.b"], ["a/b", "a/"]),
        ("**", ["a", "a/b/c"], []),
        ("src/**.js", ["src/a.js", "src/b/a.js"], ["src/a.ts", "a.js"]),
        ("?.[ch]", ["a.c", "b.h"], ["ab.c", "a.x", "/.c"]),
        ("[!a-c].txt", ["d.txt"], ["a.txt"]),
        ("*.{js,ts}", ["a.js", "a.ts"], ["a.jsx"]),
        ("{a,b/*}", ["a", "b/c"], ["b", "b/c/d"]),
        ("a,b}", ["a,b}"], ["a", "b"]),
        (r"\*.c", ["*.c"], ["a.c"]),
        ("a+(b).c", ["a+(b).c"], ["aab.c"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str], tmp_path: Path) -> None:
    rule = local._glob(pattern)
    assert [name for name in matching if not rule.fullmatch(name)] == []
    assert [name for name in others if rule.fullmatch(name)] == []
