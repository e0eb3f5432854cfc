"""Changes of the member list: refused once the hosts report that the cluster has begun."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.etcd import membership
from components.hosts.remote import Answer

OLDS = {
    "token": "one",
    "members": {"a0": "https://10.0.0.1:2380", "a1": "https://10.0.0.2:2380"},
    "hosts": {},
    "ssh_config": "config",
}
CORRECTED: dict[str, Any] = {**OLDS, "members": {**OLDS["members"], "a1": "https://10.0.0.3:2380"}}  # type: ignore[dict-item]
BEGUN, NOT_BEGUN, SILENT = Answer(3, "", ""), Answer(0, "", ""), Answer(255, "", "no route")
NO_ROOT = Answer(1, "", "sudo: a password is required")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """What each address answers."""
    answers: dict[str, Answer] = {}

    def run(ssh: str, script: str, variables: object = None, seconds: float = 0) -> Answer:
        assert script == membership.HAS_BEGUN
        return answers[ssh.partition("HostName=")[2].split()[0]]

    (tmp_path / "config").touch()
    monkeypatch.setattr(membership, "PROJECT", tmp_path)
    monkeypatch.setattr(membership, "run", run)
    return answers


def refused(news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in membership._MembershipProvider().check(OLDS, news).failures]


def test_membership_changes_before_the_cluster_begins(hosts: dict[str, Answer]) -> None:
    hosts.update({"10.0.0.1": NOT_BEGUN, "10.0.0.2": SILENT})
    assert refused(CORRECTED) == []
    assert refused({**OLDS, "token": "two"}) == []


@pytest.mark.parametrize("other", [NOT_BEGUN, SILENT, BEGUN])
def test_membership_of_a_running_cluster_refused(hosts: dict[str, Answer], other: Answer) -> None:
    hosts.update({"10.0.0.1": BEGUN, "10.0.0.2": other})
    (reason,) = refused(CORRECTED)
    assert "a1 answers its peers at https://10.0.0.2:2380 and not at https://10.0.0.3:2380" in reason


def test_membership_of_unreachable_hosts_refused(hosts: dict[str, Answer], tmp_path: Path) -> None:
    hosts.update({"10.0.0.1": SILENT, "10.0.0.2": NO_ROOT})
    assert refused(CORRECTED)
    hosts.update({"10.0.0.1": NOT_BEGUN, "10.0.0.2": NOT_BEGUN})
    (tmp_path / "config").unlink()
    assert refused(CORRECTED)


@pytest.mark.parametrize("begun", [True, False])
def test_member_has_begun_with_its_log(tmp_path: Path, begun: bool) -> None:
    if begun:
        (tmp_path / "member" / "wal").mkdir(parents=True)
    script = membership.HAS_BEGUN.replace("/var/lib/calico-lab/etcd", str(tmp_path))
    assert subprocess.run(["bash", "-c", script], check=False).returncode == (3 if begun else 0)


def test_membership_unchanged_asks_no_host(hosts: dict[str, Answer]) -> None:
    assert hosts == {}
    assert refused(OLDS) == []


def test_membership_update_stores_new_values() -> None:
    provider = membership._MembershipProvider()
    assert not provider.diff("one", {**OLDS, "__provider": "old"}, {**OLDS, "__provider": "new"}).changes
    assert provider.diff("one", OLDS, CORRECTED).changes
    assert provider.update("one", OLDS, CORRECTED).outs == CORRECTED


def lab(*changed: str, members: int = 3, others: int = 1) -> dict[str, Any]:
    """A cluster whose machines, and others of the lab, are made by these plans."""
    names = [f"a{number}" for number in range(members + others)]
    return {
        "token": "one",
        "members": {name: f"https://10.0.0.{number}:2380" for number, name in enumerate(names[:members])},
        "hosts": {name: "other" if name in changed else "plan" for name in names},
        "ssh_config": "config",
    }


def checked(olds: dict[str, Any], news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in membership._MembershipProvider().check(olds, news).failures]


@pytest.fixture
def running(hosts: dict[str, Answer]) -> None:
    hosts.update({f"10.0.0.{number}": BEGUN for number in range(5)})


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


def test_replaced_hosts_before_the_cluster_begins(hosts: dict[str, Answer]) -> None:
    hosts.update({f"10.0.0.{number}": NOT_BEGUN for number in range(3)})
    assert checked(lab(), lab("a0", "a1")) == []
