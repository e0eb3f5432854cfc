"""The steps are taken one at a time, never below a quorum, and from wherever an update was interrupted.

A model of etcd on some hosts answers the scripts, and refuses what etcd refuses.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from components.etcd import convergence
from components.etcd.convergence import Convergence, Lab, founds, parse
from components.etcd.planning import quorum
from components.hosts.remote import Answer, HostError

ALL = ("a0", "a1", "a2", "a3", "a4")


def url(name: str) -> str:
    return f"https://10.0.0.{name[1:]}:2380"


class KilledError(Exception):
    """The update was interrupted."""


@dataclass
class Process:
    """What is on one host."""

    data: int = 0
    """ID of the member whose data it has."""
    owner: str = ""
    begins: str = ""
    initial: str = ""
    runs: bool = False
    restart: bool = False
    was_healthy: bool = False


@dataclass
class Entry:
    """A member in the list."""

    name: str
    started: bool
    learner: bool


@dataclass
class Etcd:
    """The hosts, and the one cluster that has ever been healthy."""

    hosts: dict[str, Process] = field(default_factory=lambda: {name: Process() for name in ALL})
    members: dict[int, Entry] = field(default_factory=dict)
    leader: int = 0
    last: int = 0
    changes: list[str] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)
    endpoints: list[str] = field(default_factory=list)
    """Where etcdctl was last run."""
    kill_at: int = -1
    """The change after which the update is interrupted."""
    kill_before: bool = False

    def healthy(self, name: str) -> bool:
        """Whether a member of the cluster runs on the host, and a quorum of voting members does."""
        up = [number for number, one in self.members.items() if self.up(number, one)]
        voters = [number for number, one in self.members.items() if not one.learner]
        enough = (
            len([number for number in up if number in voters]) >= quorum(len(voters)) if voters else False
        )
        return enough and any(self.members[number].name == name for number in up)

    def up(self, number: int, entry: Entry) -> bool:
        """Whether a member runs with its own data."""
        host = self.hosts[entry.name]
        return host.runs and host.data == number and entry.name not in self.unreachable

    def settle(self) -> None:
        """Let members find each other."""
        if not self.members:
            for initial in {host.initial for host in self.hosts.values() if host.begins == "new"}:
                names = [part.partition("=")[0] for part in initial.split(",")]
                began = [
                    name for name in names if self.hosts[name].initial == initial and self.hosts[name].runs
                ]
                if len(began) < quorum(len(names)):
                    continue
                for name in names:
                    self.last += 1
                    self.members[self.last] = Entry(name, name in began, learner=False)
                    if name in began:
                        self.hosts[name].data = self.last
        for number, entry in self.members.items():
            host = self.hosts[entry.name]
            joins = host.runs and host.begins and host.data == -1
            if joins and len(host.initial.split(",")) == len(self.members) and not entry.started:
                host.data = number
                entry.started = True
        alive = [number for number, one in self.members.items() if self.up(number, one) and not one.learner]
        if self.leader not in alive:
            self.leader = alive[0] if alive else 0

    def survey(self, name: str, cluster: str) -> Answer:
        """What survey.sh prints on a host."""
        if name in self.unreachable:
            return Answer(255, "", "no route to host")
        host = self.hosts[name]
        data = "none" if not host.data else "own" if cluster in ("", host.owner) else "other"
        lines = [f"data {data}"]
        if host.begins:
            lines += [f"begins {host.begins}", f"initial {host.initial}"]
        lines += ["restart yes"] if host.restart else []
        lines += ["was-healthy yes"] if host.was_healthy else []
        if self.healthy(name):
            lines.append("healthy yes")
            own = next(number for number, one in self.members.items() if one.name == name)
            if self.members[own].learner:
                lines.append("error rpc not supported for learner")
            else:
                status = [{"Status": {"header": {"member_id": own}, "leader": self.leader}}]
                lines += [f"status {json.dumps(status)}", f"members {json.dumps(self.listed())}"]
        return Answer(0, "\n".join(lines), "")

    def listed(self) -> dict[str, object]:
        """What etcdctl prints of the members."""
        return {
            "members": [
                {
                    "ID": number,
                    "name": one.name if one.started else "",
                    "peerURLs": [url(one.name)],
                    "clientURLs": ["https://client"] if one.started else [],
                    "isLearner": one.learner,
                }
                for number, one in self.members.items()
            ]
        }

    def run(self, host: str, script: str, variables: Mapping[str, str]) -> Answer:
        """Run a script on a host, and record it."""
        assert host not in self.unreachable
        done = f"{host} {script} {variables.get('ARGUMENTS', variables.get('BEGINS', ''))}".strip()
        last = len(self.changes) == self.kill_at
        if last and self.kill_before:
            raise KilledError
        answer = self.do(host, script, variables)
        if not answer.status:
            self.changes.append(done)
        self.settle()
        if self.members:
            assert self.leader, f"no quorum after {self.changes}"
        if last:
            raise KilledError
        return answer

    def do(self, name: str, script: str, variables: Mapping[str, str]) -> Answer:
        """What a script does."""
        host = self.hosts[name]
        match script:
            case "begin-member.sh":
                owned = (variables["CLUSTER"], variables["BEGINS"], variables["INITIAL_CLUSTER"])
                self.hosts[name] = Process(-1, *owned, runs=True)
            case "remove-member.sh":
                self.hosts[name] = Process()
            case "restart-member.sh":
                host.restart = False
                host.runs = True
            case _:
                self.endpoints = variables["ENDPOINTS"].split(",")
                return self.etcdctl(variables["ARGUMENTS"].split())
        return Answer(0, "", "")

    def etcdctl(self, words: list[str]) -> Answer:
        """Change the cluster."""
        match words:
            case ["member", "add", name, "--learner", peer]:
                assert peer == f"--peer-urls={url(name)}"
                if any(one.learner for one in self.members.values()):
                    return Answer(1, "", "Error: etcdserver: too many learner members in cluster")
                self.last += 1
                self.members[self.last] = Entry(name, started=False, learner=True)
            case ["member", "promote", number]:
                self.members[int(number, 16)].learner = False
            case ["member", "remove", number]:
                entry = self.members.pop(int(number, 16))
                self.hosts[entry.name].runs = False
            case ["move-leader", number]:
                self.leader = int(number, 16)
            case ["endpoint", "health", "--write-out=json"]:
                health = {
                    f"{url(one.name).removesuffix('2380')}2379": self.up(number, one)
                    for number, one in self.members.items()
                }
                answers = [{"endpoint": one, "health": health[one]} for one in self.endpoints]
                return Answer(1, json.dumps(answers), "unhealthy cluster")
        return Answer(0, "", "")


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Etcd:
    model = Etcd()

    def ask(
        ssh: Mapping[str, str], _script: str, variables: Mapping[str, Mapping[str, str]], _seconds: float
    ) -> dict[str, Answer]:
        return {host: model.survey(host, variables[host]["CLUSTER"]) for host in ssh}

    def run(ssh: str, script: str, variables: Mapping[str, str], _seconds: float = 0) -> Answer:
        return model.run(ssh, script, variables)

    monkeypatch.setattr(convergence, "ask", ask)
    monkeypatch.setattr(convergence, "run", run)
    monkeypatch.setattr(convergence, "_script", lambda name: name)
    monkeypatch.setattr(convergence, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(convergence, "ELECTION_SECONDS", 0)
    monkeypatch.setattr(convergence, "tell", list)
    return model


def lab(*wanted: str) -> Lab:
    urls = {name: url(name) for name in ALL}
    return Lab({name: name for name in ALL}, {name: url(name) for name in wanted}, urls, 2379, "one", "1a2b")


def converge(etcd: Etcd, *wanted: str) -> None:
    """Go to the members, and let the gate see that all are healthy."""
    assert Convergence(lab(*wanted)).run() == ()
    assert {one.name for one in etcd.members.values()} == set(wanted)
    for name in wanted:
        assert etcd.healthy(name)
        etcd.hosts[name].begins = etcd.hosts[name].initial = ""
        etcd.hosts[name].was_healthy = True
    assert not any(one.learner for one in etcd.members.values())


def found(etcd: Etcd, *members: str) -> None:
    converge(etcd, *members)
    etcd.changes.clear()


def test_hosts_without_data_found_a_cluster(etcd: Etcd) -> None:
    converge(etcd, "a0", "a1", "a2")
    assert etcd.changes == [f"{host} begin-member.sh new" for host in ("a0", "a1", "a2")]
    etcd.changes.clear()
    converge(etcd, "a0", "a1", "a2")
    assert etcd.changes == []


CHANGES = [
    (("a0",), ("a0", "a1", "a2")),
    (("a0", "a1", "a2"), ("a0",)),
    (("a0", "a1", "a2"), ("a2",)),
    (("a0", "a1", "a2"), ("a1", "a2", "a3")),
    (("a0", "a1", "a2"), ("a2", "a3", "a4")),
    (("a0", "a1", "a2"), ("a0", "a1", "a2", "a3", "a4")),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_other_members(etcd: Etcd, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    found(etcd, *before)
    converge(etcd, *after)


@pytest.mark.parametrize(("before", "after"), [((), ("a0", "a1", "a2")), *CHANGES])
@pytest.mark.parametrize("kill_before", [False, True])
@pytest.mark.parametrize("then", ["on", "back"])
def test_interrupted_anywhere(
    etcd: Etcd, before: tuple[str, ...], after: tuple[str, ...], kill_before: bool, then: str
) -> None:
    for kill_at in range(12):
        vars(etcd).update(vars(Etcd()))
        interrupted(etcd, before, after, (kill_at, kill_before), then == "back")


def interrupted(
    etcd: Etcd, before: tuple[str, ...], after: tuple[str, ...], kill: tuple[int, bool], back: bool
) -> None:
    """Kill an update, and run another one, to the same members or to the former ones."""
    if before:
        found(etcd, *before)
    etcd.kill_at, etcd.kill_before = kill
    try:
        converge(etcd, *after)
    except KilledError:
        etcd.kill_at = -1
        converge(etcd, *(before if back and before else after))


def test_dead_member_replaced_without_its_host(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.unreachable.add("a2")
    converge(etcd, "a0", "a1", "a3")
    assert etcd.changes == [
        "a0 change-members.sh member remove 3",
        "a3 remove-member.sh",
        "a0 change-members.sh member add a3 --learner --peer-urls=https://10.0.0.3:2380",
        "a3 begin-member.sh existing",
        "a0 change-members.sh member promote 4",
    ]


@pytest.mark.parametrize("leader", [1, 2])
def test_member_leaves_together_with_its_host(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch, leader: int
) -> None:
    # The gate cannot ask a host that the config no longer has, and without it there is no quorum.
    found(etcd, "a0", "a1")
    etcd.leader = leader
    without = lab("a0")
    monkeypatch.setattr(
        "tests.unit.etcd.test_convergence.lab",
        lambda *_: dataclasses.replace(without, ssh={"a0": "a0", "a2": "a2"}),
    )
    converge(etcd, "a0")


@pytest.mark.parametrize("times", [1, 100])
def test_host_that_is_silent_once_has_not_lost_its_data(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.hosts["a1"].restart = True
    asked: list[str] = []
    survey = etcd.survey

    def silent(name: str, cluster: str) -> Answer:
        asked.append(name)
        # The first survey finds all hosts.
        if name == "a1" and 1 < asked.count("a1") <= 1 + times:
            return Answer(255, "", "connection reset")
        return survey(name, cluster)

    monkeypatch.setattr(etcd, "survey", silent)
    monkeypatch.setattr(convergence, "ELECTION_SECONDS", 0.2)
    if times == 1:
        converge(etcd, "a0", "a1", "a2")
    else:
        with pytest.raises(HostError, match="a1: etcd: the host does not answer any more: connection reset"):
            Convergence(lab("a0", "a1", "a2"), now=iter(range(1000)).__next__).run()
    assert [one for one in etcd.changes if "member" in one and "restart" not in one] == []


@pytest.mark.parametrize("members", [("a0",), ("a0", "a1", "a2")])
def test_lost_data_of_all_members_are_not_replaced_by_an_empty_cluster(
    etcd: Etcd, members: tuple[str, ...]
) -> None:
    found(etcd, *members)
    for name in members:
        etcd.hosts[name] = Process(was_healthy=True)
    etcd.members.clear()
    with pytest.raises(
        HostError, match=r"no member has data any more, and .* had\. next: set etcd.restoreFrom"
    ):
        Convergence(lab(*members)).run()
    with pytest.raises(HostError, match="no member has data any more"):
        Convergence(lab("a3")).run()
    assert etcd.changes == []


def test_lost_host_is_no_member(etcd: Etcd) -> None:
    members = lab("a0", "a1")
    with pytest.raises(HostError, match="a1: etcd: the host is lost; next: put another one in its place"):
        Convergence(dataclasses.replace(members, ssh={"a0": "a0"})).run()
    assert etcd.changes == []


def test_member_that_returns_with_old_data_is_cleaned(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    old = Process(**vars(etcd.hosts["a2"]))
    etcd.unreachable.add("a2")
    converge(etcd, "a0", "a1")
    etcd.unreachable.clear()
    etcd.hosts["a2"] = old
    converge(etcd, "a0", "a1", "a2")
    assert etcd.hosts["a2"].data == 4


def test_member_that_lost_its_data_joins_again(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.hosts["a0"] = Process()
    etcd.settle()
    converge(etcd, "a0", "a1", "a2")


def test_data_of_another_cluster_do_not_count(etcd: Etcd) -> None:
    etcd.hosts["a1"] = Process(9, "3c4d", runs=True)
    converge(etcd, "a0", "a1", "a2")
    assert etcd.changes == [f"{host} begin-member.sh new" for host in ("a0", "a1", "a2")]


def test_restarts_one_at_a_time_the_leader_last(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.leader = 2
    for name in ("a0", "a1", "a2"):
        etcd.hosts[name].restart = True
    converge(etcd, "a0", "a1", "a2")
    assert etcd.changes == [f"{host} restart-member.sh" for host in ("a0", "a2", "a1")]


def test_no_restart_while_another_member_is_unhealthy(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.hosts["a0"].restart = True
    etcd.hosts["a2"].runs = False
    assert Convergence(lab("a0", "a1", "a2")).run() == ("a2",)
    assert etcd.changes == []


def test_without_a_quorum_all_restart(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    found(etcd, "a0", "a1", "a2")
    for name in ("a0", "a1", "a2"):
        etcd.hosts[name].restart = True
        etcd.hosts[name].runs = False
    monkeypatch.setattr(etcd, "settle", lambda: None)
    assert Convergence(lab("a0", "a1", "a2")).run() == ("a0", "a1", "a2")
    assert etcd.changes == [f"{host} restart-member.sh" for host in ("a0", "a1", "a2")]


def test_lost_quorum_is_not_founded_again(etcd: Etcd) -> None:
    found(etcd, "a0", "a1", "a2")
    etcd.hosts["a1"] = etcd.hosts["a2"] = Process()
    with pytest.raises(HostError) as error:
        Convergence(lab("a0", "a1", "a2")).run()
    assert "the cluster has no quorum: a1 and a2 have no data of it, and a0 alone is no quorum" in str(
        error.value
    )
    assert etcd.changes == []


def test_former_members_have_the_data(etcd: Etcd) -> None:
    # The update that should have added a1 was interrupted, and then the config named a1 alone.
    found(etcd, "a0")
    converge(etcd, "a1")
    assert not any(change.endswith("new") for change in etcd.changes)


def test_host_of_a_wanted_member_has_to_answer(etcd: Etcd) -> None:
    etcd.unreachable.add("a1")
    with pytest.raises(HostError, match="a1: etcd: the host does not answer: no route to host"):
        Convergence(lab("a0", "a1", "a2")).run()
    assert etcd.changes == []


def test_change_that_etcd_refuses_is_tried_again(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    found(etcd, "a0")
    refusals = iter(["etcdserver: unhealthy cluster"] * 3)
    accept = etcd.etcdctl
    monkeypatch.setattr(
        etcd, "etcdctl", lambda words: Answer(1, "", said) if (said := next(refusals, "")) else accept(words)
    )
    converge(etcd, "a0", "a1")


def test_change_that_fails_names_the_command(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    found(etcd, "a0")
    monkeypatch.setattr(etcd, "etcdctl", lambda _: Answer(1, "", "warning\nError: permission denied"))
    with pytest.raises(HostError) as error:
        converge(etcd, "a0", "a1")
    assert "a0: etcd: 'etcdctl member add a1" in str(error.value)
    assert "failed: Error: permission denied; next: " in str(error.value)


def test_healthy_member_with_another_authority_restarts(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    found(etcd, "a0", "a1", "a2")
    error = "x509: certificate signed by unknown authority"
    monkeypatch.setattr(
        etcd, "survey", lambda *_: Answer(0, f"data own\nhealthy yes\nrestart yes\nerror {error}", "")
    )
    assert Convergence(lab("a0", "a1", "a2")).run() == ("a0", "a1", "a2")
    assert len(etcd.changes) == 3


def test_healthy_cluster_that_does_not_answer_is_left_alone(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(etcd, "a0", "a1", "a2")
    said = "data own\nhealthy yes\nrestart yes\nerror context deadline exceeded"
    monkeypatch.setattr(etcd, "survey", lambda *_: Answer(0, said, ""))
    with pytest.raises(HostError, match="does not answer etcdctl: context deadline exceeded"):
        Convergence(lab("a0", "a1", "a2")).run()
    assert etcd.changes == []


def test_report_of_a_host_that_does_not_answer() -> None:
    report = parse(Answer(255, "", "no route"), {})
    assert (report.reached, report.state.data, report.error) == (False, "none", "no route")
    assert founds({"a0": report})
