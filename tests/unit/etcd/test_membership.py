"""Changes of the members: shown as steps, or refused, as the hosts report the cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.etcd import convergence, membership
from components.hosts.remote import Answer

OLDS = {
    "token": "one",
    "members": {"a0": "https://10.0.0.1:2380", "a1": "https://10.0.0.2:2380"},
    "hosts": {},
    "client_port": 2379,
    "ssh_config": "config",
    "serial": 1,
}
MOVED: dict[str, Any] = {**OLDS, "members": {**OLDS["members"], "a1": "https://10.0.0.3:2380"}}  # type: ignore[dict-item]
GROWN: dict[str, Any] = {**OLDS, "members": {**OLDS["members"], "a2": "https://10.0.0.3:2380"}}  # type: ignore[dict-item]
BEGUN, NOT_BEGUN, SILENT = (
    Answer(0, "data own\n", ""),
    Answer(0, "data none\n", ""),
    Answer(255, "", "no route"),
)
HEALTHY = Answer(0, "data own\nhealthy yes\n", "")
NO_ROOT = Answer(1, "", "sudo: a password is required")


def healthy(*members: str, address: str = "10.0.0.") -> Answer:
    """What a healthy member reports: the first one leads, the others follow."""
    listed = [
        {
            "ID": number,
            "name": name,
            "peerURLs": [f"https://{address}{number}:2380"],
            "clientURLs": [f"https://{address}{number}:2379"],
        }
        for number, name in enumerate(members, start=1)
    ]
    status = [{"Status": {"header": {"member_id": 1}, "leader": 1}}]
    return Answer(
        0,
        f"data own\nhealthy yes\nstatus {json.dumps(status)}\nmembers {json.dumps({'members': listed})}\n",
        "",
    )


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """What each address answers."""
    answers: dict[str, Answer] = {}

    def ask(ssh: dict[str, str], _script: str, _variables: object, _seconds: float) -> dict[str, Answer]:
        addresses = {host: line.partition("HostName=")[2].split()[0] for host, line in ssh.items()}
        return {host: answers[address] for host, address in addresses.items()}

    aliases = ("a0", "a1", "a2", "a3", "a4", "b", "visitor")
    (tmp_path / "config").write_text("".join(f"Host {alias}\n  Port 22\n" for alias in aliases))
    monkeypatch.setattr(membership, "PROJECT", tmp_path)
    monkeypatch.setattr(convergence, "ask", ask)
    return answers


def refused(news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in membership._MembershipProvider().check(OLDS, news).failures]


def test_membership_changes_before_the_cluster_begins(hosts: dict[str, Answer]) -> None:
    hosts.update({"10.0.0.1": NOT_BEGUN, "10.0.0.2": SILENT, "10.0.0.3": NOT_BEGUN})
    assert refused(MOVED) == []
    assert refused(GROWN) == []
    assert refused({**OLDS, "token": "two"}) == []


@pytest.mark.parametrize("other", [NOT_BEGUN, SILENT, BEGUN])
def test_address_of_a_running_member_refused(hosts: dict[str, Answer], other: Answer) -> None:
    hosts.update({"10.0.0.1": BEGUN, "10.0.0.2": other})
    (reason,) = refused(MOVED)
    assert "a1 answers its peers at https://10.0.0.2:2380 and not at https://10.0.0.3:2380" in reason
    (reason,) = refused({**OLDS, "token": "two"})
    assert "its token is one and not two" in reason


def test_membership_of_unreachable_hosts_refused(hosts: dict[str, Answer], tmp_path: Path) -> None:
    hosts.update({"10.0.0.1": SILENT, "10.0.0.2": NO_ROOT, "10.0.0.3": SILENT})
    (reason,) = refused(GROWN)
    assert "no member is healthy, and a0 and a1 do not answer; a change takes a quorum" in reason
    hosts.update({"10.0.0.1": NOT_BEGUN, "10.0.0.2": NOT_BEGUN})
    (tmp_path / "config").unlink()
    assert refused(GROWN)


def test_restore_begins_with_other_members(
    hosts: dict[str, Answer], capfd: pytest.CaptureFixture[str]
) -> None:
    hosts.update({"10.0.0.1": BEGUN, "10.0.0.2": SILENT, "10.0.0.3": NOT_BEGUN})
    others = {**OLDS, "members": {"a0": "https://10.0.0.1:2380", "a2": "https://10.0.0.3:2380"}}
    (reason,) = refused(others)
    assert "or set etcd.restoreFrom with it, to another value than before" in reason
    assert refused({**others, "restore_from": "latest"}) == []
    assert capfd.readouterr().err == "etcd: the restored cluster has the members a0, a2\n"
    hosts["10.0.0.1"] = HEALTHY
    assert refused({**others, "restore_from": "latest"})
    # The value was applied before, or there is a quorum.
    restored = {**OLDS, "restore_from": "latest"}
    assert checked(restored, {**others, "restore_from": "latest"})
    hosts.update({"10.0.0.1": healthy("a0", "a1"), "10.0.0.2": healthy("a0", "a1")})
    assert refused({**others, "restore_from": "latest"}) == []
    assert "step 1" in capfd.readouterr().err


def test_new_member_shown_as_steps(hosts: dict[str, Answer], capfd: pytest.CaptureFixture[str]) -> None:
    report = healthy("a0", "a1")
    hosts.update({"10.0.0.1": report, "10.0.0.2": report, "10.0.0.3": SILENT})
    checked = membership._MembershipProvider().check(OLDS, GROWN)
    assert checked.failures == []
    assert checked.inputs["serial"] == 2
    assert capfd.readouterr().err.splitlines() == [
        "etcd: step 1: add a2 as a learner",
        "etcd: step 2: wait until a2 has the data of the cluster",
        "etcd: step 3: promote a2 to a voting member when it has caught up",
    ]


def test_host_that_is_new_is_not_asked(hosts: dict[str, Answer]) -> None:
    report = healthy("a0", "a1")
    hosts.update({"10.0.0.1": report, "10.0.0.2": report})
    assert refused({**OLDS, "members": {**OLDS["members"], "new": "https://10.0.0.7:2380"}}) == []  # type: ignore[dict-item]


def test_membership_serial_counts_changes_of_members() -> None:
    provider = membership._MembershipProvider()
    assert provider.check({}, OLDS).inputs["serial"] == 1
    assert provider.check(OLDS, {**OLDS, "serial": None}).inputs["serial"] == 1


def test_change_that_keeps_no_member_refused(hosts: dict[str, Answer]) -> None:
    report = healthy("a0", "a1")
    hosts.update({"10.0.0.1": report, "10.0.0.2": report, "10.0.0.9": SILENT})
    (reason,) = refused({**OLDS, "members": {"b": "https://10.0.0.9:2380"}})
    assert "none of the members that the cluster has, a0, a1, stays" in reason
    assert "Nothing was changed" in reason


def test_change_of_members_and_replaced_host_refused(hosts: dict[str, Answer]) -> None:
    report = healthy("a0", "a1")
    hosts.update({"10.0.0.1": report, "10.0.0.2": report, "10.0.0.3": SILENT})
    olds = {**OLDS, "hosts": {"a0": "plan", "a1": "plan"}}
    (reason,) = checked(olds, {**GROWN, "hosts": {"a0": "plan", "a1": "other"}})
    assert "hosts would be replaced at the same time (a1)" in reason


def test_cluster_that_never_reached_its_members_is_asked(hosts: dict[str, Answer]) -> None:
    # The update to a0 and a1 was interrupted: the cluster is a0 alone.
    report = healthy("a0")
    hosts.update({"10.0.0.1": report, "10.0.0.2": NOT_BEGUN})
    (reason,) = refused({**OLDS, "members": {"a1": "https://10.0.0.2:2380"}})
    assert "none of the members that the cluster has, a0, stays" in reason


def test_membership_unchanged_asks_no_host(hosts: dict[str, Answer]) -> None:
    assert hosts == {}
    assert refused(OLDS) == []


def test_membership_update_stores_new_values() -> None:
    provider = membership._MembershipProvider()
    assert not provider.diff("one", {**OLDS, "__provider": "old"}, {**OLDS, "__provider": "new"}).changes
    assert provider.diff("one", OLDS, GROWN).changes
    assert provider.update("one", OLDS, GROWN).outs == GROWN


def test_membership_identity_differs() -> None:
    provider = membership._MembershipProvider()
    assert provider.create(OLDS).id != provider.create(OLDS).id


def lab(*changed: str, members: int = 3, others: int = 1) -> dict[str, Any]:
    """A cluster whose machines, and others of the lab, are made by these plans."""
    names = [f"a{number}" for number in range(members + others)]
    return {
        "token": "one",
        "members": {name: f"https://10.0.0.{number}:2380" for number, name in enumerate(names[:members])},
        "hosts": {name: "other" if name in changed else "plan" for name in names},
        "client_port": 2379,
        "ssh_config": "config",
    }


def checked(olds: dict[str, Any], news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in membership._MembershipProvider().check(olds, news).failures]


@pytest.fixture
def running(hosts: dict[str, Answer]) -> None:
    hosts.update({f"10.0.0.{number}": HEALTHY for number in range(5)})


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("members", "changed"),
    [(3, ["a0", "a1"]), (5, ["a0", "a1", "a2"]), (1, ["a0"]), (2, ["a1"]), (3, ["a0", "a1", "a2"])],
)
def test_replaced_hosts_keep_a_quorum(members: int, changed: list[str]) -> None:
    (reason,) = checked(lab(members=members), lab(*changed, members=members))
    assert f"etcd.members: the hosts {', '.join(changed)} would be replaced" in reason
    assert "Nothing was changed" in reason


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("members", "changed", "told"),
    [
        (3, ["a1"], "etcd: the host a1 is replaced"),
        (5, ["a0", "a1"], "etcd: the hosts a0 and a1 are replaced"),
        (3, ["a0", "a1", "a2", "a3"], "etcd: every host of the lab is replaced"),
        (3, ["a3"], ""),
        (3, [], ""),
    ],
)
def test_replaced_hosts_effects_are_printed(
    members: int, changed: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(lab(members=members), lab(*changed, members=members)) == []
    assert capfd.readouterr().err.startswith(told)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("other", [BEGUN, NOT_BEGUN, SILENT])
def test_replaced_host_while_another_member_is_not_healthy(hosts: dict[str, Answer], other: Answer) -> None:
    hosts["10.0.0.2"] = other
    (reason,) = checked(lab(), lab("a1"))
    assert "a1 would be replaced while of the other members a0 alone is healthy" in reason
    assert "a quorum of 2 has to stay" in reason
    assert checked(lab(), lab("a0", "a1", "a2", "a3")) == []


def test_change_while_the_host_of_a_member_that_stays_is_silent(hosts: dict[str, Answer]) -> None:
    report = healthy("a0", "a1")
    hosts.update({"10.0.0.1": report, "10.0.0.2": SILENT, "10.0.0.3": NOT_BEGUN})
    (reason,) = refused(GROWN)
    assert "a1 does not answer; start it, or put another host in its place" in reason


def test_replaced_hosts_before_the_cluster_begins(hosts: dict[str, Answer]) -> None:
    hosts.update({f"10.0.0.{number}": NOT_BEGUN for number in range(3)})
    assert checked(lab(), lab("a0", "a1")) == []
