"""Snapshots of etcd: each is restored for trial, damaged ones do not count, `lab status` shows their age.

A cluster that has lost its quorum is restored from them; containers from after it keep their addresses.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.guests import Guest, guests
from components.hosts import remote
from diagnosis import status
from diagnosis.finding import Finding
from tests.live import agreement, calico
from tests.live.connections import connect, were_kept
from tests.live.look import everywhere, healthy
from tests.live.program import Program
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import PROJECT, Outputs

# A restore is two updates.
pytestmark = pytest.mark.timeout(600)
HOST = "a1"
FOLDER = "/var/lib/calico-lab-snapshots"
TAKE = "systemctl start calico-lab-snapshot.service"
STATUS = "calico-lab-snapshot status"
LATER = """\
mkdir -p /run/systemd/system/calico-lab-snapshot.timer.d
printf '[Timer]\\nOnActiveSec=\\nOnActiveSec=1d\\n' >/run/systemd/system/calico-lab-snapshot.timer.d/test.conf
systemctl daemon-reload
systemctl restart calico-lab-snapshot.timer
"""
"""The timer runs, and does not elapse in the tests (systemd.timer(5): an empty value resets the others)."""
AS_BEFORE = """\
rm -r /run/systemd/system/calico-lab-snapshot.timer.d
systemctl daemon-reload
systemctl restart calico-lab-snapshot.timer
"""
OLD = """\
set -eu
mkdir /root/records
mv "$FOLDER"/2*.json /root/records/
cd /root/records
last=$(printf '%s\\n' * | tail -n 1)
time=$(date --utc -d '3 hours ago' +%Y-%m-%dT%H:%M:%SZ)
jq -c --arg time "$time" '.time = $time' "$last" >"$FOLDER/$time.json"
cp "$FOLDER/${last%.json}.db" "$FOLDER/$time.db"
"""
RAISE = """\
set -eu
set -a
. /etc/calico-lab/etcd/etcdctl.env
set +a
curl --silent --fail --cacert "$ETCDCTL_CACERT" --cert "$ETCDCTL_CERT" --key "$ETCDCTL_KEY" \\
    https://127.0.0.1:2379/v3/maintenance/alarm \\
    --data "{\\"action\\": \\"ACTIVATE\\", \\"memberID\\": \\"$MEMBER\\", \\"alarm\\": \\"NOSPACE\\"}"
"""


def run(outputs: Outputs, script: str, host: str = HOST, **variables: str) -> str:
    """Run a script on a host; returns what it prints."""
    answer = remote.run(outputs.ssh[host], script, variables, seconds=180)
    assert answer.status == 0, f"{host}: {answer.error or answer.text}"
    return answer.text


def state(outputs: Outputs, host: str = HOST) -> dict[str, Any]:
    """What a host says of its snapshots."""
    found: dict[str, Any] = json.loads(run(outputs, STATUS, host))
    return found


@pytest.fixture(scope="module", autouse=True)
def taken(outputs: Outputs) -> Iterator[None]:
    """A new snapshot on each host, and none by the timers beside those of the tests."""
    # A change of the members has started the timers again a moment ago.
    everywhere(outputs, LATER)
    everywhere(outputs, TAKE)
    yield
    everywhere(outputs, AS_BEFORE)


def findings(program: Program, outputs: Outputs) -> list[Finding]:
    """What `lab status` finds."""
    return status.findings(status.look(outputs, program.stack))


def test_snapshot_on_each_member(program: Program, outputs: Outputs) -> None:
    for host in outputs.hosts:
        found = state(outputs, host)
        assert found["error"] is None
        assert found["last"]["keys"] > 10
        assert urls_host(found["last"]["endpoint"]) == outputs.hosts[host], "its own member comes first"
        modes = run(outputs, f"stat -c %a {FOLDER} {FOLDER}/*.db {FOLDER}/*.json | sort -u", host)
        assert modes.split() == ["600", "700"]
    done = subprocess.run(
        ["lab", "--stack", program.stack, "status", "--json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    document = json.loads(done.stdout)
    assert document["healthy"], document["findings"]
    assert {one["host"] for one in document["snapshots"]} == set(outputs.hosts)
    assert all(0 <= one["ageSeconds"] < 3600 for one in document["snapshots"])


def urls_host(url: str) -> str:
    """The host in `https://host:port`."""
    return url.rpartition("/")[2].partition(":")[0]


def test_snapshot_has_the_keys_of_the_cluster(outputs: Outputs) -> None:
    last = state(outputs)["last"]
    script = "etcdctl endpoint hashkv --cluster --rev=$REVISION -w json"
    hashes = json.loads(run(outputs, script, REVISION=str(last["revision"])))
    assert {one["HashKV"]["hash"] for one in hashes} == {last["hash"]}
    count = run(
        outputs,
        "etcdctl get '' --prefix --keys-only --limit=1 --rev=$REVISION -w fields",
        REVISION=str(last["revision"]),
    )
    assert f'"Count" : {last["keys"]}' in count


@pytest.fixture
def damaged(outputs: Outputs) -> Iterator[dict[str, Any]]:
    """The last snapshot, of which a byte has changed."""
    last: dict[str, Any] = state(outputs)["last"]
    file = f"{FOLDER}/{last['time']}.db"
    run(outputs, f"cp {file} /root/intact && printf X | dd of={file} bs=1 seek=9000 conv=notrunc status=none")
    yield last
    run(outputs, f"mv /root/intact {file}")


def test_damaged_snapshot_is_not_counted(program: Program, outputs: Outputs, damaged: dict[str, Any]) -> None:
    found = state(outputs)
    assert found["damaged"] == 1
    assert found["last"] is None or found["last"]["time"] < damaged["time"]
    assert damaged["time"] not in run(outputs, "calico-lab-snapshot list")
    # A trial refuses it too.
    answer = remote.run(outputs.ssh[HOST], f"calico-lab-snapshot verify {FOLDER}/{damaged['time']}.db")
    assert answer.status == 1
    assert "next: " in answer.error
    warned = status.warnings(status.look(outputs, program.stack))
    assert any(one.where == HOST and "damaged, and not counted" in one.what for one in warned)


@pytest.fixture
def old(outputs: Outputs) -> Iterator[None]:
    """The snapshots of a host are three hours old, by their records."""
    run(outputs, OLD, FOLDER=FOLDER)
    yield
    # A file without a record is removed with the next snapshot.
    run(outputs, f"rm {FOLDER}/2*.json && mv /root/records/* {FOLDER}/ && rmdir /root/records && {TAKE}")


def test_old_snapshots_are_a_finding(program: Program, outputs: Outputs, old: None) -> None:
    [found] = findings(program, outputs)
    assert found.where == HOST
    assert found.what.startswith("its last good snapshot of etcd is 3:0")
    assert "systemctl start calico-lab-snapshot" in found.next


@pytest.fixture
def full(outputs: Outputs) -> Iterator[None]:
    """The alarm that a member raises when its database has reached the quota."""
    script = "ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 etcdctl endpoint status -w fields"
    fields = run(outputs, script)
    [member] = [line.rpartition(" ")[2] for line in fields.splitlines() if line.startswith('"MemberID"')]
    run(outputs, RAISE, MEMBER=member)
    yield
    run(outputs, "etcdctl alarm disarm")


def test_alarm_is_a_finding(program: Program, outputs: Outputs, full: None) -> None:
    [found] = findings(program, outputs)
    assert (found.where, "alarm NOSPACE" in found.what) == (HOST, True)
    assert "etcdctl alarm disarm" in found.next
    # Reads go on, and so do snapshots.
    run(outputs, TAKE)


KEYS = "/calico-lab-test/snapshots/"
LOSE = """\
set -eu
systemctl kill --signal=KILL calico-lab-etcd
systemctl stop calico-lab-etcd
rm -rf /var/lib/calico-lab/etcd/member
"""
RESTORE = {"etcd.restoreFrom": "latest"}
LATE_SECONDS = 240
LATE = """\
set -u
run=(docker run --detach --network "$NETWORK" --volume /usr:/usr:ro --name "$NAME")
for _ in $(seq 60); do
    ! "${run[@]}" calico-lab-guest sleep infinity >/dev/null 2>&1 || break
    docker rm --force "$NAME" >/dev/null 2>&1
    sleep 1
done
docker inspect --format "{{(index .NetworkSettings.Networks \\"$NETWORK\\").IPAddress}}" "$NAME"
"""


@dataclass
class Restored:
    """A lab whose cluster was restored."""

    printed: str
    """What the update printed."""
    after: Mapping[str, Guest]
    """The containers from after the snapshot, by host."""
    late: list[str]
    """The addresses of the containers that were started meanwhile."""


def put(outputs: Outputs, name: str) -> None:
    """Write a key."""
    run(outputs, "etcdctl put $KEY written", KEY=f"{KEYS}{name}")


def test_restore_is_refused_with_a_quorum(program: Program, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"restoreFrom: latest: the cluster has a quorum"):
        program.preview(program.changed_config(tmp_path, RESTORE))


@pytest.fixture(scope="module")
def restored(
    program: Program, outputs: Outputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restored]:
    """Two members of three have lost their data, and the cluster is restored, while containers start."""
    config = program.changed_config(tmp_path_factory.mktemp("config"), RESTORE)
    hosts = list(outputs.hosts)
    put(outputs, "before")
    with guests(outputs, hosts, name="before") as before:
        everywhere(outputs, TAKE)
        put(outputs, "after")
        with guests(outputs, hosts, name="after") as after:
            connect(outputs, {**before, **{f"{host}-after": guest for host, guest in after.items()}})
            for host in hosts[:2]:
                run(outputs, LOSE, host)
            names = {host: {"NAME": f"calico-lab-late-{host}", "NETWORK": outputs.network} for host in hosts}
            ssh = {host: outputs.ssh[host] for host in hosts}
            with ThreadPoolExecutor() as pool:
                started = pool.submit(remote.ask, ssh, LATE, names, LATE_SECONDS)
                printed = program.up(config, seconds=240)
                late = started.result()
            assert all(answer.status == 0 for answer in late.values()), late
            yield Restored(printed, {**before, **after}, [answer.text.strip() for answer in late.values()])
            were_kept({**before, **{f"{host}-after": guest for host, guest in after.items()}})
            remote.ask(ssh, "docker rm --force $NAME", names)
    run(outputs, f"etcdctl del --prefix {KEYS}")
    # A member of the restored cluster that loses its data joins it again.
    run(outputs, LOSE, hosts[2])
    program.up()
    healthy(program)


def test_restore_has_the_keys_of_the_snapshot(outputs: Outputs, restored: Restored) -> None:
    assert "etcd has the data of" in restored.printed, restored.printed
    assert "could not" not in restored.printed, restored.printed
    assert run(outputs, f"etcdctl get --prefix --keys-only {KEYS}").split() == [f"{KEYS}before"]
    hashes = json.loads(run(outputs, "etcdctl endpoint hashkv --cluster -w json"))
    assert len(hashes) == len(outputs.hosts)


def test_restore_keeps_addresses_of_containers(outputs: Outputs, restored: Restored) -> None:
    eventually(lambda: agreement.check(outputs), seconds=60, pause=1)
    kept = {guest.address for guest in restored.after.values()}
    assert not kept & set(restored.late)
    assert len(set(restored.late)) == len(restored.late)
    assert calico.names(outputs, "ipreservations") == {"calico-lab-services"}


def test_restore_lab_is_healthy(program: Program, outputs: Outputs, restored: Restored) -> None:
    eventually(lambda: assert_healthy(program, outputs), seconds=60, pause=1)


def assert_healthy(program: Program, outputs: Outputs) -> None:
    """Fail if `lab status` finds anything."""
    assert findings(program, outputs) == []
