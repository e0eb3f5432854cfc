"""Snapshots: which hosts take them and when, and the command on a host that has a pretended etcd."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.etcd import snapshots
from components.etcd.config import EtcdConfig
from components.etcd.rendering import required_flows
from tests.preview.program import Program, config_of, run, variable
from tests.unit.pretend_host import PretendHost

SCRIPTS = Path(snapshots.__file__).with_name("scripts")
PROGRAM = SCRIPTS / "calico-lab-snapshot"
FOLDER = "/var/lib/calico-lab-snapshots"
OWN, OTHER = "https://10.0.0.2:2379", "https://10.0.0.1:2379"
ETCDCTL = r"""
endpoint=$ETCDCTL_ENDPOINTS
case "$*" in
*"get calico-lab") ! grep -qsx "$endpoint" "{root}/unhealthy" ;;
*"snapshot save"*) cat "{root}/data" >"${{@: -1}}" ;;
*"endpoint hashkv"*)
    if [ -s "{root}/compactions" ]; then
        sed -i 1d "{root}/compactions"
        echo 'Error: mvcc: required revision has been compacted' >&2
        exit 1
    fi
    from="{root}/data"
    [ "$endpoint" != https://127.0.0.1:2379 ] || from=$(cat "{root}/trial")/data/db
    printf '[{{"HashKV":{{"hash":%s,"compact_revision":4}}}}]\n' "$(cksum <"$from" | cut -d ' ' -f 1)"
    ;;
*"--limit=1"*) echo '"Count" : 22' ;;
esac
"""
ETCDUTL = r"""
case "$*" in
"snapshot status "*)
    [ "$(head -c 4 "$3")" = good ] || {{ echo 'Error: no snapshot' >&2 && exit 1; }}
    echo '{{"revision":29}}'
    ;;
"snapshot restore "*)
    mkdir "$5"
    cat "$3" >"$5/db"
    [ ! -e "{root}/loses" ] || echo lost >>"$5/db"
    echo "${{5%/data}}" >"{root}/trial"
    ;;
esac
"""


class SnapshotHost(PretendHost):
    """A host whose cluster has the content of the file `data`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (root / "data").write_text("good data")
        self.program("etcdctl", ETCDCTL.format(root=root))
        self.program("etcdutl", ETCDUTL.format(root=root))
        self.program("unshare", 'exec "${@:3}"')
        self.program("etcd", "exec sleep 60")
        self.write("/etc/calico-lab/etcd/etcdctl.env", f"ETCDCTL_ENDPOINTS={OTHER}\n")
        for name in ("CACERT", "CERT", "KEY"):
            with self.path("/etc/calico-lab/etcd/etcdctl.env").open("a") as settings:
                settings.write(f"ETCDCTL_{name}=/pki/{name}\n")
        self.settings(keep=2)

    def settings(self, keep: int) -> None:
        """Write the settings."""
        text = f'HOST=a1\nKEEP={keep}\nEVERY_MINUTES=60\nSNAPSHOT_ENDPOINTS="{OWN} {OTHER}"\n'
        self.write(snapshots.SETTINGS_FILE, text)

    def call(self, *words: str, time: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command; `time` is the host's clock."""
        if time:
            self.program("date", f'case "$*" in --utc*) echo {time} ;; *) exec /bin/date "$@" ;; esac')
        text = re.sub(r"(/etc/calico-lab|/var/lib/calico-lab)", rf"{self.root}\1", PROGRAM.read_text())
        program = self.root / "calico-lab-snapshot"
        program.write_text(text)
        return subprocess.run(
            ["bash", str(program), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": f"{self.root}/programs:/usr/bin:/bin"},
        )

    def status(self) -> dict[str, Any]:
        """What the command says of itself."""
        done = self.call("status")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def files(self) -> list[str]:
        """The names of what is kept."""
        return sorted(file.name for file in self.path(FOLDER).iterdir())


@pytest.fixture
def host(tmp_path: Path) -> SnapshotHost:
    return SnapshotHost(tmp_path)


def test_take_counts_what_was_restored(host: SnapshotHost) -> None:
    done = host.call("take", time="2026-11-28T15:00:00Z")
    assert done.returncode == 0, done.stderr
    assert host.files == ["2026-11-28T15:00:00Z.db", "2026-11-28T15:00:00Z.json"]
    file = host.path(FOLDER) / "2026-11-28T15:00:00Z.db"
    assert file.read_text() == "good data"
    assert file.stat().st_mode & 0o777 == 0o600
    status = host.status()
    assert (status["count"], status["error"]) == (1, None)
    assert (status["last"]["keys"], status["last"]["revision"]) == (22, 29)
    assert status["last"]["endpoint"] == OWN
    # The trial has no setting of the member: every variable that begins with ETCD_ would be one.
    [trial] = [call for call in host.calls if call.startswith("etcd ")]
    assert "--client-cert-auth" in trial
    assert "https://127.0.0.1:2379" in trial


def test_take_from_a_member_with_a_quorum(host: SnapshotHost) -> None:
    (host.root / "unhealthy").write_text(f"{OWN}\n")
    assert host.call("take").returncode == 0
    assert host.status()["last"]["endpoint"] == OTHER


def test_take_without_a_quorum_keeps_the_last(host: SnapshotHost) -> None:
    host.call("take", time="2026-11-28T15:00:00Z")
    (host.root / "unhealthy").write_text(f"{OWN}\n{OTHER}\n")
    done = host.call("take", time="2026-11-28T16:00:00Z")
    assert done.returncode == 1
    assert "no quorum" in done.stderr
    assert "next: " in done.stderr
    status = host.status()
    assert status["last"]["time"] == "2026-11-28T15:00:00Z"
    assert "no quorum" in status["error"]
    (host.root / "unhealthy").unlink()
    host.call("take", time="2026-11-28T17:00:00Z")
    assert host.status()["error"] is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("loses", "the trial restore has"), ("damaged", "no snapshot")],
    ids=["the restored keys differ", "the file is damaged"],
)
def test_take_does_not_count_what_the_trial_refuses(host: SnapshotHost, fault: str, reason: str) -> None:
    (host.root / fault).touch()
    if fault == "damaged":
        (host.root / "data").write_text("bad data")
    done = host.call("take")
    assert done.returncode == 1
    assert reason in done.stderr
    status = host.status()
    assert (status["count"], status["last"]) == (0, None)
    assert reason in status["error"]
    assert host.files == ["failure.json"]


def test_take_again_after_a_compaction(host: SnapshotHost) -> None:
    (host.root / "compactions").write_text("1\n2\n")
    assert host.call("take").returncode == 0
    assert host.status()["count"] == 1
    (host.root / "compactions").write_text("1\n2\n3\n")
    assert host.call("take").returncode == 1


def test_take_removes_the_oldest(host: SnapshotHost) -> None:
    for hour in (10, 11, 12):
        host.write(f"{FOLDER}/2026-11-27T00:00:00Z.db", "without a record")
        assert host.call("take", time=f"2026-11-28T{hour}:00:00Z").returncode == 0
    assert host.files == [f"2026-11-28T{hour}:00:00Z.{kind}" for hour in (11, 12) for kind in ("db", "json")]


@pytest.mark.parametrize("damage", ["changed", ""], ids=["changed", "gone"])
def test_a_damaged_snapshot_is_not_counted(host: SnapshotHost, damage: str) -> None:
    for hour in (10, 11):
        host.call("take", time=f"2026-11-28T{hour}:00:00Z")
    host.write(f"{FOLDER}/2026-11-28T11:00:00Z.db", damage)
    status = host.status()
    assert (status["count"], status["damaged"]) == (1, 1)
    assert status["last"]["time"] == "2026-11-28T10:00:00Z"
    listed = host.call("list")
    assert [json.loads(line)["time"] for line in listed.stdout.splitlines()] == ["2026-11-28T10:00:00Z"]
    assert "11:00:00Z.db is damaged" in listed.stderr


def test_list_newest_first(host: SnapshotHost) -> None:
    for hour in (10, 11):
        host.call("take", time=f"2026-11-28T{hour}:00:00Z")
    first, second = map(json.loads, host.call("list").stdout.splitlines())
    assert first["time"] > second["time"]
    assert first["file"] == f"{host.root}{FOLDER}/2026-11-28T11:00:00Z.db"


def test_verify_file(host: SnapshotHost) -> None:
    host.write("/root/mine.db", "good data")
    done = host.call("verify", str(host.path("/root/mine.db")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == 22
    host.write("/root/mine.db", "bad data")
    assert "is no snapshot" in host.call("verify", str(host.path("/root/mine.db"))).stderr
    assert "there is no file" in host.call("verify", "/nowhere").stderr


TIMER = "[Timer]\nOnActiveSec=60s\n"
VARIABLES = {"HOST": "a1", "OTHER": "etcd-snapshots", "KEEP_SNAPSHOTS": ""}


def test_timer_is_restarted_after_a_change_only(host: SnapshotHost) -> None:
    unit = f"/etc/systemd/system/{snapshots.TIMER}"
    moved = {"/etc/systemd": f"{host.root}/etc/systemd"}

    def restarts() -> int:
        done = host.run(SCRIPTS / "snapshots.sh", {**VARIABLES, "SNAPSHOTS": "yes"}, instead=moved)
        assert done.returncode == 0, done.stderr
        return host.calls.count(f"systemctl restart {snapshots.TIMER}")

    host.write(unit, TIMER)
    assert [restarts(), restarts()] == [1, 1]
    host.write(unit, TIMER.replace("60", "70"))
    assert restarts() == 2
    done = host.run(SCRIPTS / "snapshots.sh", {**VARIABLES, "SNAPSHOTS": ""}, instead=moved)
    assert "takes no snapshots" in done.stderr
    assert f"systemctl stop {snapshots.TIMER}" in host.calls


@pytest.mark.parametrize("keep", [True, False])
def test_removal(host: SnapshotHost, *, keep: bool) -> None:
    host.call("take")
    variables = {**VARIABLES, "KEEP_SNAPSHOTS": "yes" if keep else ""}
    done = host.run(SCRIPTS / "remove-snapshots.sh", variables)
    assert done.returncode == 0, done.stderr
    assert host.path(FOLDER).exists() == keep
    assert ("stay in" in done.stderr) == keep


def test_removal_leaves_what_the_other_component_has(host: SnapshotHost) -> None:
    host.call("take")
    host.write("/var/lib/calico-lab/components/etcd-snapshots/installed", "")
    assert host.run(SCRIPTS / "remove-snapshots.sh", VARIABLES).returncode == 0
    assert host.status()["count"] == 1


def config(**values: Any) -> EtcdConfig:  # noqa: ANN401 - values of the config file
    return EtcdConfig.model_validate({"snapshots": values})


def test_hosts_every_member_if_the_config_names_none() -> None:
    assert config().snapshot_hosts == ("a0", "a1", "a2")
    assert config(hosts=[]).snapshot_hosts == ()
    assert config(hosts=["a3"]).snapshot_hosts == ("a3",)
    assert snapshots.files(config(hosts=["a3"]), "a0", []) == {}
    assert ("a3", "a0") in {(flow.origin, flow.host) for flow in required_flows(config(hosts=["a3"]), [])}


def test_timers_take_turns() -> None:
    timers = [snapshots.render_timer(config(everyMinutes=60).snapshots, index, 3) for index in range(3)]
    moments = [re.findall(r"^OnActiveSec=(\d+)s$", timer, re.MULTILINE) for timer in timers]
    assert moments == [["60"], ["90", "1260"], ["120", "2460"]]
    assert all("OnUnitActiveSec=60min" in timer for timer in timers)


def test_settings_own_member_first() -> None:
    text = snapshots.files(config(), "a1", [OTHER, OWN], OWN)[snapshots.SETTINGS_FILE]
    assert f'SNAPSHOT_ENDPOINTS="{OWN} {OTHER}"' in text
    assert "KEEP=24" in text


def with_snapshots(**values: Any) -> Program:  # noqa: ANN401 - values of the config file
    document = copy.deepcopy(config_of("lab"))
    document["calico-lab:etcd"]["snapshots"] = values
    return run(document)


@pytest.fixture(scope="module")
def lab() -> Program:
    return run(config_of("lab"))


def test_original_lab_needs_no_further_resource(lab: Program) -> None:
    without = with_snapshots(hosts=[])
    assert len(lab.resources) == len(without.resources)
    assert snapshots.PROGRAM_FILE in lab.named("a0-etcd").inputs["create"]
    assert snapshots.PROGRAM_FILE not in without.named("a0-etcd").inputs["create"]


def test_no_member_restarts_for_its_snapshots(lab: Program) -> None:
    changed = with_snapshots(everyMinutes=10)
    assert changed.named("a0-etcd").inputs["create"] != lab.named("a0-etcd").inputs["create"]
    assert variable(changed, "a0-etcd", "CONFIG") == variable(lab, "a0-etcd", "CONFIG")
    assert "SNAPSHOTS=yes" in lab.named("a0-etcd").inputs["create"]


def test_host_that_is_no_member_has_a_certificate_of_its_own() -> None:
    document = copy.deepcopy(config_of("lab"))
    document["calico-lab:etcd"].update({"members": ["a0"], "snapshots": {"hosts": ["a2"]}})
    program = run(document)
    installed = program.named("a2-etcd-snapshots")
    assert "COMPONENT=etcd-snapshots" in installed.inputs["create"]
    assert program.named("a2-etcd-certificate").inputs["common_name"] == snapshots.CLIENT_NAME
    assert variable(program, "a0-etcd", "SNAPSHOTS") == ""
    assert " etcd-snapshots " in f" {variable(program, 'a2-prepare', 'COMPONENTS')} "


def test_config_unknown_host_is_refused() -> None:
    with pytest.raises(Exception, match=r"etcd\.snapshots\.hosts\[0\]: 'b0': must be one of"):
        with_snapshots(hosts=["b0"])
