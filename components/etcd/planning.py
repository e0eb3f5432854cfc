"""The steps by which a running etcd cluster gets the members of the config, one at a time. Pure.

A preview and an update use the same function: `next_step` names the first step from what the cluster is now.
The preview applies it to a model and asks again; the update takes it and asks the cluster again. So an update
that was interrupted at any point goes on where the cluster is.

The order keeps a quorum at every step: a member that is gone for good is removed first, because it counts in
the quorum; then members join, each as a learner that does not vote until it has caught up; members that leave
and are healthy go last, the leader after it has moved its leadership.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Data = Literal["none", "own", "other"]


@dataclass(frozen=True)
class Member:
    """A member, as the cluster lists it."""

    id: str
    """Hexadecimal."""
    name: str
    """The name of its host; of a member that has not started yet, if its host is known by its peer URL."""
    url: str
    """Its peer URL."""
    started: bool = True
    """Whether it has published its client URLs, which it does when it has run."""
    learner: bool = False


@dataclass(frozen=True)
class HostState:
    """What a host reports of its member; that of a host that does not answer is `HostState()`."""

    data: Data = "none"
    """Whether it has a write-ahead log, and whether that belongs to this cluster."""
    begins: str = ""
    """`new` or `existing` from the member's first start until the gate has seen it healthy."""
    healthy: bool = False
    """Whether it answers a read that a quorum has confirmed."""
    restart: bool = False
    """Whether it runs with a former configuration."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    members: tuple[Member, ...]
    leader: str
    """ID of the member."""
    hosts: Mapping[str, HostState] = field(default_factory=dict)

    def host(self, member: Member) -> HostState:
        """What the host of a member reports."""
        return self.hosts.get(member.name, HostState())


@dataclass(frozen=True)
class Step:
    """One change of the cluster."""

    kind: Literal["add", "start", "promote", "move", "remove", "restart"]
    host: str
    member: Member | None = None
    """The member as the cluster lists it; None for one that is to be added."""
    target: Member | None = None
    """Who becomes the leader."""
    reason: str = ""
    """Why a member is removed."""

    @property
    def sentences(self) -> list[str]:
        """What the step does."""
        match self.kind:
            case "add":
                return [f"add {self.host} as a learner"]
            case "start":
                return [f"wait until {self.host} has the data of the cluster"]
            case "promote":
                return [f"promote {self.host} to a voting member when it has caught up"]
            case "move":
                assert self.target  # noqa: S101 - a step of this kind has one
                return [f"move the leadership from {self.host} to {self.target.name}"]
            case "restart":
                return [f"restart {self.host}"]
            case _:
                return [f"remove {self.host}, {self.reason}"]


class BlockedError(Exception):
    """A step would take the quorum, or concerns a cluster that is not healthy."""

    def __init__(self, reason: str, hosts: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.hosts = hosts
        """The hosts whose members have to be healthy first."""


def quorum(count: int) -> int:
    """How many of a number of voting members confirm a change."""
    return count // 2 + 1


def next_step(cluster: Cluster, wanted: Mapping[str, str]) -> Step | None:
    """Return the first step towards the wanted members; None if there is nothing to do.

    Args:
        cluster: What it is now.
        wanted: Peer URL by the name of the host.

    Raises:
        BlockedError: The step cannot be taken now.
    """
    step = next(_steps(cluster, wanted), None)
    if step:
        _check(cluster, step, wanted)
    return step


def plan(cluster: Cluster, wanted: Mapping[str, str]) -> list[Step]:
    """Return all steps to the wanted members, if every member does what it is told.

    Raises:
        BlockedError: One of the steps cannot be taken.
    """
    steps: list[Step] = []
    while step := next_step(cluster, wanted):
        steps.append(step)
        cluster = _after(cluster, step, wanted)
    return steps


def _steps(cluster: Cluster, wanted: Mapping[str, str]) -> Iterator[Step]:
    """Yield what could be done next, the most urgent first."""
    urls = set(wanted.values())
    leaving = [member for member in cluster.members if member.url not in urls]
    staying = {name: one for name, url in wanted.items() for one in cluster.members if one.url == url}
    for member in leaving:
        if member.learner or not member.started or not cluster.host(member).healthy:
            gone = "which has not joined" if member.learner or not member.started else "which is not healthy"
            yield Step("remove", member.name or member.url, member, reason=gone)
    for name, member in staying.items():
        if member.started and cluster.hosts.get(name, HostState()).data != "own":
            yield Step("remove", name, member, reason="whose data are lost, so that it can join again")
    for name, member in staying.items():
        # A host with data that it did not get by joining has those of a former member.
        if not member.started and not cluster.hosts.get(name, HostState()).begins:
            yield Step("start", name, member)
        elif member.learner:
            yield Step("promote", name, member)
    yield from _restarts(cluster, staying)
    yield from (Step("add", name) for name in wanted if name not in staying)
    for member in sorted(leaving, key=lambda one: one.id == cluster.leader):
        if member.id == cluster.leader:
            target = next((one for one in staying.values() if one.started and not one.learner), None)
            yield Step("move", member.name, member, target=target)
        yield Step("remove", member.name, member, reason="which the config no longer names")


def _restarts(cluster: Cluster, staying: Mapping[str, Member]) -> Iterator[Step]:
    """Yield the members that wait for a restart: an unhealthy one first, the leader last."""
    waiting = [one for name, one in staying.items() if cluster.hosts.get(name, HostState()).restart]
    for member in sorted(waiting, key=lambda one: (cluster.host(one).healthy, one.id == cluster.leader)):
        yield Step("restart", member.name, member)


def _check(cluster: Cluster, step: Step, wanted: Mapping[str, str]) -> None:
    """Refuse a step that takes the quorum, or that an unhealthy member makes dangerous."""
    voters = [member for member in cluster.members if not member.learner]
    sick = [member for member in voters if not cluster.host(member).healthy]
    need = quorum(len(voters))
    healthy = len(voters) - len(sick)
    names = " and ".join(member.name or member.url for member in sick)
    waits = tuple(member.name for member in sick if member.name in wanted)
    if healthy < need:
        raise BlockedError(
            f"{names} {'is' if len(sick) == 1 else 'are'} not healthy, and of {len(voters)} members a "
            f"quorum of {need} has to be",
            waits,
        )
    others = [member for member in sick if not (step.member and member.id == step.member.id)]
    # To remove who is gone, or to finish a join that has begun, makes a cluster with another unhealthy member
    # no worse.
    leaves = step.kind == "remove" and step.member in voters and step.member not in sick
    if others and (leaves or step.kind in ("add", "restart", "move")):
        names = " and ".join(member.name or member.url for member in others)
        raise BlockedError(
            f"{names} {'is' if len(others) == 1 else 'are'} not healthy; repair it, or replace it first",
            tuple(member.name for member in others if member.name in wanted),
        )


def _after(cluster: Cluster, step: Step, wanted: Mapping[str, str]) -> Cluster:
    """The cluster after a step."""
    hosts = dict(cluster.hosts)
    members = list(cluster.members)
    leader = cluster.leader
    at = members.index(step.member) if step.member in members else -1
    match step.kind:
        case "add":
            members.append(
                Member(f"new-{step.host}", step.host, wanted[step.host], started=False, learner=True)
            )
            hosts[step.host] = replace(hosts.get(step.host, HostState()), begins="")
        case "start":
            members[at] = replace(members[at], started=True)
            hosts[step.host] = HostState("own", "existing", healthy=True)
        case "promote":
            members[at] = replace(members[at], learner=False)
            hosts[step.host] = HostState("own", "existing", healthy=True)
        case "move":
            assert step.target  # noqa: S101 - a step of this kind has one
            leader = step.target.id
        case "restart":
            hosts[step.host] = HostState("own", healthy=True)
        case _:
            del members[at]
    return Cluster(tuple(members), leader, hosts)
