"""The placement of notebooks: stable, and by free memory."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.hosts import remote
from components.notebooks import placement
from components.notebooks.placement import _PlacementProvider, spread

HOSTS = ("a0", "a1", "a2")
classes = st.dictionaries(st.sampled_from([f"s{number}" for number in range(30)]), st.integers(256, 2048))
memories = st.fixed_dictionaries({host: st.integers(1024, 65536) for host in HOSTS})


@given(
    classes, memories, st.dictionaries(st.sampled_from([f"s{n}" for n in range(30)]), st.sampled_from(HOSTS))
)
def test_spread_places_every_notebook(
    wanted: dict[str, int], memory: dict[str, int], named: dict[str, str]
) -> None:
    placed = spread(wanted, named, {}, HOSTS, memory)
    assert list(placed) == list(wanted)
    assert set(placed.values()) <= set(HOSTS)
    assert all(placed[name] == host for name, host in named.items() if name in placed)


@given(classes, classes, memories)
def test_spread_moves_nobody_because_another_joins_or_leaves(
    before: dict[str, int], after: dict[str, int], memory: dict[str, int]
) -> None:
    former = spread(before, {}, {}, HOSTS, memory)
    now = spread(after, {}, former, HOSTS, memory)
    assert all(now[name] == former[name] for name in set(former) & set(now))


@given(classes, memories, st.sampled_from(HOSTS))
def test_spread_moves_only_those_of_a_host_that_leaves(
    wanted: dict[str, int], memory: dict[str, int], gone: str
) -> None:
    former = spread(wanted, {}, {}, HOSTS, memory)
    left = [host for host in HOSTS if host != gone]
    now = spread(wanted, {}, former, left, {host: memory[host] for host in left})
    assert {name for name in wanted if now[name] != former[name]} == {
        name for name in wanted if former[name] == gone
    }


@given(st.integers(0, 60))
def test_spread_over_equal_hosts_is_even(number: int) -> None:
    wanted = {f"s{n}": 512 for n in range(number)}
    placed = list(spread(wanted, {}, {}, HOSTS, dict.fromkeys(HOSTS, 4096)).values())
    counts = [placed.count(host) for host in HOSTS]
    assert max(counts) - min(counts) <= 1


def test_spread_counts_memory_of_notebooks_that_name_their_host() -> None:
    wanted, named = {"x": 1024, "y": 512, "s": 512}, {"x": "a0", "y": "a1"}
    assert spread(wanted, named, {}, HOSTS, dict.fromkeys(HOSTS, 4096)) == {"x": "a0", "y": "a1", "s": "a2"}


def test_spread_leaves_a_notebook_that_names_no_host_any_more() -> None:
    assert spread({"s": 512}, {}, {"s": "a1"}, HOSTS, dict.fromkeys(HOSTS, 4096)) == {"s": "a1"}


def answers(**memory: int | None) -> Any:  # noqa: ANN401 - a function that stands for `ask`
    def answer(found: int | None) -> remote.Answer:
        return remote.Answer(255, "", "no route") if found is None else remote.Answer(0, f"{found}\n", "")

    def ask(ssh: dict[str, str], *_: object) -> dict[str, remote.Answer]:
        return {host: answer(memory[host]) for host in ssh}

    return ask


def check(olds: dict[str, Any], wanted: dict[str, int]) -> dict[str, str]:
    ssh = {host: f"ssh {host}" for host in HOSTS}
    news = {"wanted": wanted, "named": {}, "allowed": list(HOSTS), "ssh": ssh}
    hosts: dict[str, str] = _PlacementProvider().check(olds, news).inputs["hosts"]
    return hosts


def test_placement_takes_no_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "ask", answers(a0=None, a1=4096, a2=2048))
    assert check({}, {"s1": 512, "s2": 512}) == {"s1": "a1", "s2": "a1"}
    # One that is there stays: a host that restarts does not lose its notebooks.
    assert check({"hosts": {"s1": "a0"}}, {"s1": 512, "s2": 512}) == {"s1": "a0", "s2": "a1"}


def test_placement_of_a_lab_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "ask", answers(a0=None, a1=None, a2=None))
    assert check({}, {"s1": 512, "s2": 512}) == {"s1": "a0", "s2": "a1"}


def test_placement_asks_nobody_when_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "ask", None)
    assert check({"hosts": {"s1": "a0", "s2": "a1"}}, {"s1": 512}) == {"s1": "a0"}
