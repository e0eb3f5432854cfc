"""The members of the cluster change while a client writes: fewer, more, a dead one, a returning one.

Each change is a change of the config. A member that stays is not restarted, and no acknowledged write is
lost.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.hosts import remote
from tests.live import etcd_client
from tests.live.etcd_client import Credentials, Writer
from tests.live.look import CONTAINERS, everywhere, healthy
from tests.live.program import QUIET, Program, kill_session
from tests.live.test_10_etcd import credentials
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import PROJECT, Outputs

__all__ = ["credentials"]
STAYS = "a0"
PREFIX = "/calico-lab-test/members"
UNITS = "calico-lab-etcd calico-lab-bird"
PROCESSES = f"systemctl show -P MainPID {UNITS} docker | paste -s -d ' '"
DATA = "ls -d /var/lib/calico-lab/etcd* 2>/dev/null || true"
KEYS = f"etcdctl get {PREFIX}/ --prefix --keys-only --endpoints https://127.0.0.1:2379"
SECONDS = 240
ASIDE = "/var/lib/calico-lab/former"


@pytest.fixture(scope="module")
def writes(
    outputs: Outputs, credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Writer]:
    """A client of the member that stays. In the end each member has what was acknowledged."""
    record = tmp_path_factory.mktemp("writes") / "acknowledged"
    endpoint = outputs.etcd_endpoint(STAYS)
    assert endpoint
    with etcd_client.writer(endpoint, credentials, PREFIX, record) as running:
        yield running
    try:
        assert running.acknowledged
        for host in outputs.hosts:
            answer = remote.run(outputs.ssh[host], KEYS)
            assert answer.status == 0, answer.error
            kept = {line.rpartition("/")[2] for line in answer.text.split()}
            assert running.acknowledged - kept == set(), f"{host} has lost acknowledged writes"
    finally:
        remote.run(outputs.ssh[STAYS], f"etcdctl del {PREFIX}/ --prefix")


@pytest.fixture
def writing(writes: Writer) -> Iterator[None]:
    """Fail a test during which, or after which, nothing was acknowledged."""
    before = len(writes.acknowledged)
    yield
    during = len(writes.acknowledged)
    assert during > before

    def goes_on() -> None:
        assert len(writes.acknowledged) > during

    eventually(goes_on, seconds=10, pause=0.1)


def members(outputs: Outputs) -> dict[str, str]:
    """ID by name of the voting members."""
    answer = remote.run(outputs.ssh[STAYS], "etcdctl member list --write-out=simple")
    assert answer.status == 0, answer.error
    fields = [line.split(", ") for line in answer.text.splitlines()]
    assert all(one[1] == "started" and one[5] == "false" for one in fields), answer.text
    return {one[2]: one[0] for one in fields}


def running(outputs: Outputs) -> dict[str, str]:
    """The containers, and the processes of BIRD and Docker, by host."""
    seen = everywhere(outputs, f"{PROCESSES} | cut -d ' ' -f 2-; {CONTAINERS} | sort")
    return seen | {"etcd": remote.run(outputs.ssh[STAYS], PROCESSES).text.split()[0]}


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("writing")
def test_members_shrink_to_one(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    before = running(outputs)
    said = program.up(program.changed_config(tmp_path, {"etcd.members": [STAYS]}), seconds=SECONDS)
    assert "etcd: step 1: " in said
    assert list(members(outputs)) == [STAYS]
    assert healthy(program).etcd_endpoints == (outputs.etcd_endpoint(STAYS),)
    data = everywhere(outputs, DATA)
    assert {host for host, files in data.items() if files} == {STAYS}
    assert running(outputs) == before


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.usefixtures("writing")
def test_members_grow_after_a_killed_update(outputs: Outputs, program: Program) -> None:
    before = running(outputs)
    killed_when(program, "etcd: wait until a1 has the data")
    said = program.up(seconds=SECONDS)
    assert "etcd: promote a1" in said
    assert set(members(outputs)) == set(outputs.hosts)
    assert healthy(program).etcd_endpoints == outputs.etcd_endpoints
    assert running(outputs) == before


def killed_when(program: Program, says: str) -> None:
    """Run `up`, and kill it with all its processes when it says something."""
    command = ["pulumi", "up", "--yes", "--skip-preview", *QUIET, "--stack", program.stack]
    with subprocess.Popen(
        command, cwd=PROJECT, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout
        seen = any(says in line for line in up.stdout)
        kill_session(up)
    assert seen
    program.pulumi("cancel", "--yes")


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.usefixtures("writing")
def test_dead_member_leaves_and_returns_with_old_data(
    outputs: Outputs, program: Program, tmp_path: Path
) -> None:
    dead, other = "a2", "a1"
    former = members(outputs)
    before = running(outputs)
    done = remote.run(
        outputs.ssh[dead],
        f"systemctl kill --signal=KILL calico-lab-etcd; systemctl stop calico-lab-etcd\n"
        f"mkdir {ASIDE}; cp -a /var/lib/calico-lab/etcd /var/lib/calico-lab/etcd-cluster {ASIDE}",
    )
    assert done.status == 0, done.error

    # A healthy member does not leave before the dead one.
    with pytest.raises(ProgramError, match="a2 is not healthy; repair it, or replace it first"):
        program.preview(program.changed_config(tmp_path, {"etcd.members": [STAYS, dead]}))
    said = program.up(program.changed_config(tmp_path, {"etcd.members": [STAYS, other]}), seconds=SECONDS)
    assert f"etcd: step 1: remove {dead}, which is not healthy" in said
    assert members(outputs) == {name: former[name] for name in (STAYS, other)}

    # What it had would be of a member that the cluster has removed.
    remote.run(outputs.ssh[dead], f"cp -a {ASIDE}/. /var/lib/calico-lab/; rm -r {ASIDE}")
    program.up(seconds=SECONDS)
    after = members(outputs)
    assert {name: after[name] for name in (STAYS, other)} == {name: former[name] for name in (STAYS, other)}
    assert after[dead] != former[dead]
    assert healthy(program).etcd_endpoints == outputs.etcd_endpoints
    assert running(outputs) == before
    assert program.preview() == []
