"""The scripts of a member: start, restart one at a time, the readiness gate, removal."""

import shutil
from pathlib import Path

import pytest

from components.etcd import rendering as etcd
from tests.unit.pretend_host import PretendHost

HERE = Path(etcd.__file__).with_name("scripts")
MEMBER = {"HOST": "a1", "ENDPOINT": "https://10.0.0.2:2379"}
HEALTHY = "is healthy: successfully committed proposal"
ACTIVE = "exit 0"
INACTIVE = '[ "$1" != is-active ] || exit 3'
OTHER = "aa, started, a0, https://10.0.0.1:2380, https://10.0.0.1:2379, false"
LOCK = 'if [ "$1" = lock ]; then echo calico-lab-restart/1; exec sleep 60; fi'


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    host = PretendHost(tmp_path)
    host.write("/etc/calico-lab/etcd/etcdctl.env", "ETCDCTL_ENDPOINTS=https://10.0.0.1:2379\n")
    return host


def restarts(host: PretendHost) -> list[str]:
    return [call for call in host.calls if call.startswith("systemctl restart")]


def test_a_new_member_is_started_without_waiting_for_the_others(host: PretendHost) -> None:
    host.program("systemctl", INACTIVE)
    host.program("etcdctl", "exit 1")
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert restarts(host) == ["systemctl restart --no-block calico-lab-etcd.service"]
    assert "systemctl enable --quiet calico-lab-etcd.service" in host.calls


def test_a_member_that_has_stopped_is_started(host: PretendHost) -> None:
    host.write("/var/lib/calico-lab/etcd/member/wal/0.wal", "")
    host.program("systemctl", INACTIVE)
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert restarts(host) == ["systemctl restart --no-block calico-lab-etcd.service"]


@pytest.mark.parametrize(
    ("entry", "starts"),
    [
        ("bb, started, a1, https://10.0.0.2:2380, , false", True),
        ("bb, started, a1, https://10.0.0.2:2380, https://10.0.0.2:2379, false", False),
        ("bb, unstarted, , https://10.0.0.2:2380, , false", False),
        ("", False),
    ],
    ids=["it begins with the others", "it has run", "it is to join", "it was removed"],
)
def test_a_member_without_data_begins_only_with_the_others(
    host: PretendHost, entry: str, starts: bool
) -> None:
    # It would have another identity than the one that the cluster knows it by, or than none.
    host.program("systemctl", INACTIVE)
    host.program("etcdctl", f"printf '%s\\n' '{OTHER}' '{entry}'")
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert bool(restarts(host)) == starts


def test_a_member_is_restarted_under_the_clusters_lock(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    host.program("etcdctl", LOCK)
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert restarts(host) == ["systemctl restart calico-lab-etcd.service"]
    assert host.calls.index("etcdctl lock calico-lab-restart") < host.calls.index(restarts(host)[0])


def test_a_healthy_member_does_not_give_way_while_another_is_missing(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    missing = 'echo "https://10.0.0.1:2379 is unhealthy: failed to commit proposal"; exit 1'
    host.program("etcdctl", f'{LOCK}\n[ "$ETCDCTL_ENDPOINTS" = https://10.0.0.2:2379 ] || {{ {missing}; }}')
    done = host.run(HERE / "member.sh", MEMBER)
    assert done.returncode == 1
    assert restarts(host) == []
    assert done.stderr.startswith("a1: etcd: not restarted with its new configuration")
    assert "https://10.0.0.1:2379 is unhealthy" in done.stderr
    assert "next: " in done.stderr


def test_a_sick_member_is_restarted_even_so(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    host.program("etcdctl", f"{LOCK}\nexit 1")
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert restarts(host) == ["systemctl restart calico-lab-etcd.service"]


def test_without_a_quorum_there_is_no_lock_to_wait_for(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    host.program("etcdctl", "exit 1")
    assert host.run(HERE / "member.sh", MEMBER).returncode == 0
    assert restarts(host) == ["systemctl restart --no-block calico-lab-etcd.service"]


QUICK = {"LOCK_SECONDS=60": "LOCK_SECONDS=1"}
QUORUM = f'echo "https://10.0.0.1:2379 {HEALTHY}"'


@pytest.mark.parametrize("busy", ["exec sleep 60", "exit 1"], ids=["another has it", "it was cut off"])
def test_with_a_quorum_the_lock_is_waited_for(host: PretendHost, busy: str) -> None:
    host.program("systemctl", ACTIVE)
    third = f'[ "$(grep -c "^etcdctl lock" "{host.root}/calls")" -ge 3 ]'
    late = f'if [ "$1" = lock ] && ! {third}; then {busy}; fi'
    host.program("etcdctl", f"{late}\n{LOCK}\n{QUORUM}")
    patient = {"SECONDS + members * LOCK_SECONDS": "SECONDS + 60", **QUICK}
    done = host.run(HERE / "member.sh", MEMBER, instead=patient)
    assert done.returncode == 0, done.stderr
    assert host.calls.count("etcdctl lock calico-lab-restart") == 3
    assert restarts(host) == ["systemctl restart calico-lab-etcd.service"]


def test_with_a_quorum_no_member_restarts_without_the_lock(host: PretendHost) -> None:
    host.program("systemctl", ACTIVE)
    host.program("etcdctl", f'[ "$1" != lock ] || exec sleep 60\n{QUORUM}')
    done = host.run(HERE / "member.sh", MEMBER, instead=QUICK)
    assert done.returncode == 1
    assert restarts(host) == []
    assert done.stderr.startswith("a1: etcd: not restarted with its new configuration, because the lock ")
    assert "next: " in done.stderr


GATE = {"HOST": "a1", "ENDPOINT": "https://10.0.0.2:2379", "SECONDS_ALLOWED": "0"}


def test_the_gate_opens_when_the_member_is_healthy(host: PretendHost) -> None:
    host.program("etcdctl", f'echo "$ETCDCTL_ENDPOINTS {HEALTHY}"')
    assert host.run(HERE / "health.sh", GATE).returncode == 0
    assert host.calls == ["etcdctl --command-timeout=2s endpoint health"]


def test_the_gate_waits_until_the_member_is_healthy(host: PretendHost) -> None:
    host.program("etcdctl", f'[ "$(grep -c ^etcdctl "{host.root}/calls")" -ge 3 ]')
    assert host.run(HERE / "health.sh", {**GATE, "SECONDS_ALLOWED": "30"}).returncode == 0
    assert host.calls.count("etcdctl --command-timeout=2s endpoint health") == 3


def test_a_sick_member_says_what_it_sees(host: PretendHost) -> None:
    host.program("etcdctl", 'echo "{}"; echo "https://10.0.0.2:2379 is unhealthy: no leader"; exit 1')
    host.program("systemctl", "echo ActiveState=activating; echo SubState=start")
    host.program("journalctl", "echo 'the last line of the journal'")
    done = host.run(HERE / "health.sh", GATE)
    assert done.returncode == 1
    assert done.stderr.startswith("a1: etcd: the member is not healthy after 0 s\n")
    assert "its unit calico-lab-etcd.service: ActiveState=activating SubState=start" in done.stderr
    assert "its client endpoint: https://10.0.0.2:2379 is unhealthy: no leader" in done.stderr
    assert "the last line of the journal" in done.stderr
    assert "next: 'journalctl -u calico-lab-etcd.service' on each member" in done.stderr


LOST = "echo 'member 3886 has already been bootstrapped'"
PEER = "https://10.0.0.2:2380"
JOINING = "/var/lib/calico-lab/etcd-joining.env"


def run_gate_of_lost(
    host: PretendHost, entry: str, seconds: int = 0, said: str = LOST
) -> tuple[int, list[str], str]:
    """Run the gate of a member without data; return its status, what it did, and what it said.

    The cluster has `entry` of it, and it is healthy once it has been started.
    """
    host.write("/etc/calico-lab/etcd/etcd.env", f"ETCD_INITIAL_ADVERTISE_PEER_URLS={PEER}\n")
    host.path(JOINING).parent.mkdir(parents=True, exist_ok=True)
    host.program("journalctl", said)
    answers = f"""
        case "$*" in
        *"member list"*) printf '%s\\n' '{OTHER}' '{entry}' ;;
        *"endpoint health") grep -q 'systemctl start' "{host.root}/calls" ;;
        esac
    """
    host.program("etcdctl", answers)
    done = host.run(HERE / "health.sh", {**GATE, "SECONDS_ALLOWED": str(seconds)})
    changes = ("etcdctl --command-timeout=5s member remove", "etcdctl --command-timeout=5s member add")
    did = [
        call.removeprefix("etcdctl --command-timeout=5s ") for call in host.calls if call.startswith(changes)
    ]
    return done.returncode, did, done.stderr


@pytest.mark.parametrize(
    ("entry", "did"),
    [
        (f"bb, started, a1, {PEER}, https://10.0.0.2:2379, false", ["member remove bb", "member add a1"]),
        (f"bb, unstarted, , {PEER}, , false", []),
        ("", ["member add a1"]),
    ],
    ids=["it has run", "it was added already", "it was removed already"],
)
def test_a_member_that_lost_its_data_takes_its_place_again(
    host: PretendHost, entry: str, did: list[str]
) -> None:
    host.write("/var/lib/calico-lab/etcd/member/snap/db", "")
    host.program("systemctl", f'[ "$1" != start ] || cp {host.path(JOINING)} {host.root}/started-with')
    status, done, said = run_gate_of_lost(host, entry, 60)
    assert (status, said) == (0, "")
    assert [call.partition(" --peer-urls=")[0] for call in done] == did
    assert all(call.endswith(f"--peer-urls={PEER}") for call in done if "add" in call)
    assert not host.path("/var/lib/calico-lab/etcd/member").exists()
    # It is told to join, and only until it has.
    assert (host.root / "started-with").read_text() == "ETCD_INITIAL_CLUSTER_STATE=existing\n"
    assert not host.path(JOINING).exists()


def test_a_member_that_has_not_joined_yet_goes_on_joining_after_a_reboot(host: PretendHost) -> None:
    host.path("/run").mkdir()
    status, done, _ = run_gate_of_lost(host, "", 0)
    assert (status, len(done)) == (1, 1)
    shutil.rmtree(host.path("/run"))
    assert host.path(JOINING).read_text() == "ETCD_INITIAL_CLUSTER_STATE=existing\n"


def test_what_a_joining_member_is_told_counts_more_than_its_settings() -> None:
    unit = (HERE.with_name("units") / etcd.UNIT).read_text().splitlines()
    read = [line.partition("=")[2] for line in unit if line.startswith("EnvironmentFile=")]
    assert read == [etcd.SETTINGS_FILE, f"-{JOINING}"], "of two files the later one counts (systemd.exec(5))"


def test_a_member_that_was_not_started_takes_its_place_again(host: PretendHost) -> None:
    host.program("systemctl", '[ "$1" != show ] || echo inactive')
    status, done, _ = run_gate_of_lost(
        host, f"bb, started, a1, {PEER}, https://10.0.0.2:2379, false", 60, said=""
    )
    assert (status, len(done)) == (0, 2)


def test_a_member_that_begins_with_the_others_is_left_alone(host: PretendHost) -> None:
    status, done, _ = run_gate_of_lost(host, f"bb, started, a1, {PEER}, , false")
    assert (status, done) == (1, [])
    assert "systemctl stop calico-lab-etcd.service" not in host.calls


def test_a_member_that_has_data_does_not_join(host: PretendHost) -> None:
    host.write("/var/lib/calico-lab/etcd/member/wal/0.wal", "")
    status, done, _ = run_gate_of_lost(host, f"bb, started, a1, {PEER}, https://10.0.0.2:2379, false")
    assert (status, done) == (1, [])


def test_a_member_that_cannot_take_its_place_says_so(host: PretendHost) -> None:
    host.program("etcdctl", "echo 'etcdserver: unhealthy cluster' >&2; exit 1")
    host.program("journalctl", LOST)
    done = host.run(HERE / "health.sh", GATE)
    assert "next: this host has lost the data of a member of a running cluster" in done.stderr


def test_removal_leaves_no_data_and_may_be_repeated(host: PretendHost) -> None:
    host.write("/var/lib/calico-lab/etcd/member/wal/0.wal", "")
    host.write("/var/lib/calico-lab/etcd-joining.env", "")
    host.program("systemctl", "exit 1")
    for _ in range(2):
        assert host.run(HERE / "remove-member.sh", {"HOST": "a1"}).returncode == 0
        assert list(host.path("/var/lib/calico-lab").iterdir()) == []
    assert "systemctl stop calico-lab-etcd.service" in host.calls
