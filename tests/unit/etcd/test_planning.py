"""The order in which members join and leave, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.etcd.planning import (
    BlockedError,
    Cluster,
    HostState,
    Member,
    Step,
    next_step,
    plan,
    quorum,
)

CASES = sorted((Path(__file__).parent / "cases" / "plans").glob("*.json"))


def url(name: str) -> str:
    return f"https://10.0.0.{name[1:]}:2380"


def cluster(spec: dict[str, Any]) -> Cluster:
    """The cluster of a case: what differs from healthy voting members is said by member or host."""
    members = []
    hosts = {}
    for name in spec["members"]:
        member = {"started": True, "learner": False, **spec.get("listed", {}).get(name, {})}
        members.append(Member(name, name if member["started"] else "", url(name), **member))
        hosts[name] = HostState("own", healthy=True)
    for name, state in spec.get("hosts", {}).items():
        hosts[name] = HostState(**state)
    # As the report names a member that has not published its name.
    named = tuple(Member(one.id, one.id, one.url, one.started, one.learner) for one in members)
    return Cluster(named, spec.get("leader", spec["members"][0]), hosts)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_plan(case: Path) -> None:
    spec = json.loads(case.read_text())
    wanted = {name: url(name) for name in spec["wanted"]}
    if "refused" in spec:
        with pytest.raises(BlockedError) as refused:
            plan(cluster(spec), wanted)
        assert spec["refused"] in str(refused.value)
        assert refused.value.hosts == tuple(spec.get("waits", ()))
        return
    steps = [sentence for step in plan(cluster(spec), wanted) for sentence in step.sentences]
    assert steps == spec["steps"]


@pytest.mark.parametrize(("count", "need"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_quorum(count: int, need: int) -> None:
    assert quorum(count) == need


def healthy_voters(seen: Cluster) -> int:
    return sum(not one.learner and seen.host(one).healthy for one in seen.members)


@pytest.mark.parametrize("before", range(1, 8))
@pytest.mark.parametrize("after", range(1, 8))
@pytest.mark.parametrize("common", range(1, 8))
def test_plan_keeps_a_quorum_and_goes_on_from_any_step(before: int, after: int, common: int) -> None:
    if common > min(before, after):
        return
    old = [f"a{number}" for number in range(before)]
    new = [*old[:common], *(f"b{number}" for number in range(after - common))]
    # The numbers in the addresses of both differ.
    urls = {name: f"https://10.0.{name[0] == 'b':d}.{name[1:]}:2380" for name in [*old, *new]}
    members = tuple(Member(name, name, urls[name]) for name in old)
    now = Cluster(members, old[-1], {name: HostState("own", healthy=True) for name in old})
    wanted = {name: urls[name] for name in new}
    steps = plan(now, wanted)
    kinds = [step.kind for step in steps]
    assert kinds.count("add") == kinds.count("promote") == after - common
    assert kinds.count("remove") == before - common
    voters = before
    for step in steps:
        voters += (step.kind == "promote") - (step.kind == "remove")
        assert voters >= min(before, after)
    for step in steps:
        if step.kind == "remove":
            assert step.member
            assert step.member.name not in new
    # The leader moves its leadership before it leaves.
    if common < before:
        assert "move" in kinds


def test_restart_leader_last_and_one_at_a_time() -> None:
    names = ("a0", "a1", "a2")
    wanted = {name: url(name) for name in names}
    members = tuple(Member(name, name, url(name)) for name in names)
    waiting = {name: HostState("own", healthy=True, restart=True) for name in names}
    restarted = []
    for _ in names:
        step = next_step(Cluster(members, "a0", waiting), wanted)
        assert step
        assert step.kind == "restart"
        restarted.append(step.host)
        # No other one restarts while it is away.
        away = {**waiting, step.host: HostState("own")}
        if len(restarted) < len(names):
            with pytest.raises(BlockedError) as blocked:
                next_step(Cluster(members, "a1", away), wanted)
            assert blocked.value.hosts == (step.host,)
        waiting[step.host] = HostState("own", healthy=True)
    assert restarted == ["a1", "a2", "a0"]
    assert next_step(Cluster(members, "a0", waiting), wanted) is None


def test_restart_of_an_unhealthy_member_is_first() -> None:
    names = ("a0", "a1", "a2")
    members = tuple(Member(name, name, url(name)) for name in names)
    hosts = {name: HostState("own", healthy=name != "a2", restart=True) for name in names}
    step = next_step(Cluster(members, "a0", hosts), {name: url(name) for name in names})
    assert step == Step("restart", "a2", members[2])
