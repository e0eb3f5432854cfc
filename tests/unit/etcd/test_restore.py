"""The restore of a cluster: which snapshot, in which order, what is refused, and the scripts of its steps."""

import copy
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.calico.clients import datastore_clients
from components.calico.config import CalicoConfig
from components.etcd import restore
from components.etcd.config import EtcdConfig
from components.etcd.restore import _RestoreProvider, chosen, utc
from components.hosts.remote import PROJECT, Answer, HostError
from tests.preview.program import Program, config_of, run
from tests.unit.pretend_host import PretendHost

MEMBERS = ("a0", "a1", "a2")
SCRIPTS = Path(restore.__file__).with_name("scripts")
CALICO_SCRIPTS = PROJECT / "components" / "calico" / "scripts"
PAUSE, HOLD, RESUME = (
    str((CALICO_SCRIPTS / f"{name}.sh").relative_to(PROJECT)) for name in ("pause", "hold", "resume")
)
STEPS = {(PROJECT / path).read_text(): Path(path).stem for path in (PAUSE, HOLD, RESUME)}
STEPS |= {restore._LIST: "list", restore._VERIFY: "verify", "true": "reach"}


def record(time: str, name: str = "good") -> dict[str, Any]:
    """A snapshot's record, as `calico-lab-snapshot list` prints it."""
    return {
        "host": "?",
        "time": time,
        "revision": 29,
        "keys": 22,
        "sha256": name,
        "file": f"/var/lib/calico-lab-snapshots/{time}.db",
    }


class Lab:
    """Hosts that answer each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        """The steps so far: `<step>` on all its hosts, `prepare <host> from <host>`."""
        self.variables: dict[str, Mapping[str, str]] = {}
        """The last variables of a step, by step."""
        self.quorum = False
        self.becomes_healthy = True
        self.records: dict[str, list[dict[str, Any]]] = {
            "a0": [record("2026-11-28T15:00:00Z"), record("2026-11-28T14:00:00Z")],
            "a1": [record("2026-11-28T15:20:00Z", "newest")],
            "a2": [],
        }
        self.fails: dict[str, set[str]] = {}
        """The hosts that fail, by step."""
        self.bumps = set(MEMBERS)
        self.pending = ""
        self.problem = ""
        monkeypatch.setattr(restore, "ask", self.ask)
        monkeypatch.setattr(restore, "transfer", self.transfer)
        monkeypatch.setattr(restore, "QUORUM_SECONDS", 0)

    def ask(
        self, ssh: Mapping[str, str], script: str, variables: Mapping[str, Mapping[str, str]], _seconds: float
    ) -> dict[str, Answer]:
        """Stands for `remote.ask`."""
        step = STEPS.get(script) or next(iter(variables.values()))["STEP"]
        self.steps.append(step)
        self.variables[step] = next(iter(variables.values()), {})
        if step == "start" and self.becomes_healthy:
            self.quorum = True
        if step == "stop":
            self.quorum = False
        return {host: self._answer(step, host) for host in ssh}

    def _answer(self, step: str, host: str) -> Answer:
        if host in self.fails.get(step, ()):
            return Answer(255, "", "No route to host")
        match step:
            case "quorum":
                return Answer(0 if self.quorum and host != "a2" else 1, "", "")
            case "list":
                return Answer(0, "".join(f"{json.dumps(one)}\n" for one in self.records[host]), "")
            case "verify":
                return Answer(0, json.dumps(record("2026-11-28T12:00:00Z", "file")), "")
            case "pending":
                return Answer(0, self.pending if host == "a1" else "", "")
        return Answer(0, "yes\n" if step == "bumps" and host in self.bumps else "", "")

    def transfer(
        self, source: tuple[str, str], target: tuple[str, str], variables: Mapping[str, str], _seconds: float
    ) -> str:
        """Stands for `remote.transfer`."""
        self.steps.append(f"prepare {target[0]} from {source[0]}")
        self.variables["prepare"] = variables
        return self.problem


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def props(restore_from: str = "latest", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any input
    clients = {"hosts": list(MEMBERS), "variables": {}, "pause": PAUSE, "hold": HOLD, "resume": RESUME}
    members = {name: {"peer": f"https://{name}:2380", "client": f"https://{name}:2379"} for name in MEMBERS}
    return {
        "restore_from": restore_from,
        "despite_quorum": False,
        "token": "token",
        "members": members,
        "sources": list(MEMBERS),
        "ssh": {name: name for name in MEMBERS},
        "clients": clients,
        **changes,
    }


def test_restore_order(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    done = _RestoreProvider().create(props())
    assert lab.steps == [
        *("quorum", "reach", "list", "bumps"),
        *(f"prepare {member} from a1" for member in MEMBERS),
        *("stop", "pause", "replace", "start", "quorum", "hold", "resume", "finish"),
    ]
    assert done.outs is not None
    assert "2026-11-28T15:20:00Z newest" in done.outs["restored"]
    assert "etcd has the data of 2026-11-28T15:20:00Z, from the snapshot on a1" in capsys.readouterr().err
    sent = lab.variables["prepare"]
    assert sent["CLUSTER"] == "a0=https://a0:2380,a1=https://a1:2380,a2=https://a2:2380"
    assert sent["TOKEN"] != "token"
    assert (sent["SHA256"], sent["BUMP"]) == ("newest", "yes")


def test_restore_raises_the_revision_on_all_members_or_none(lab: Lab) -> None:
    lab.bumps = {"a0", "a1"}
    _RestoreProvider().create(props())
    assert lab.variables["prepare"]["BUMP"] == ""


def test_restore_is_refused_with_a_quorum(lab: Lab) -> None:
    lab.quorum = True
    [failure] = _RestoreProvider().check({}, props()).failures
    assert failure.property == "restoreFrom"
    assert "the cluster has a quorum" in failure.reason
    assert "restoreDespiteQuorum" in failure.reason
    # It may have got one since the preview.
    with pytest.raises(HostError, match="has a quorum"):
        _RestoreProvider().create(props())
    assert set(lab.steps) == {"quorum", "pending"}


def test_restore_despite_a_quorum(lab: Lab) -> None:
    lab.quorum = True
    assert _RestoreProvider().check({}, props(despite_quorum=True)).failures == []
    _RestoreProvider().create(props(despite_quorum=True))
    assert "replace" in lab.steps


def test_restore_once_for_each_value(lab: Lab) -> None:
    lab.quorum = True
    before = props()
    provider = _RestoreProvider()
    assert provider.check(before, props()).failures == []
    assert lab.steps == []
    assert not provider.diff("", before, props(despite_quorum=True)).changes
    assert provider.diff("", before, props("2026-11-28T15:00:00Z")).changes
    assert provider.check(before, props("2026-11-28T15:00:00Z")).failures != []
    lab.quorum = False
    provider.update("", before, props("2026-11-28T15:00:00Z"))
    assert "replace" in lab.steps


@pytest.mark.parametrize(
    ("moment", "time"),
    [
        ("latest", "2026-11-28T15:20:00Z"),
        ("2026-11-28T15:00:00Z", "2026-11-28T15:00:00Z"),
        ("2026-11-28 14:59", "2026-11-28T14:00:00Z"),
        ("2026-11-28T16:00:00+01:00", "2026-11-28T15:00:00Z"),
        ("2026-11-27", None),
    ],
)
def test_chosen_newest_by_then(lab: Lab, moment: str, time: str | None) -> None:
    every = [one for records in lab.records.values() for one in records]
    found = chosen(every, moment)
    assert (found["time"] if found else None) == time


def test_utc_without_a_zone() -> None:
    assert utc("2026-11-28T15:00") == utc("2026-11-28T15:00:00Z")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lab: lab.records.update(a0=[], a1=[]), "none of the hosts a0, a1, a2 has a good snapshot"),
        (lambda lab: lab.fails.update(reach={"a2"}), "a2: No route to host"),
        (
            lambda lab: setattr(lab, "problem", "No space left"),
            "a0: etcd: the snapshot of a1 cannot be restored",
        ),
    ],
    ids=["no snapshot", "a host is away", "it does not arrive"],
)
def test_restore_changes_nothing_before_all_is_there(
    lab: Lab, spoil: Callable[[Lab], object], message: str
) -> None:
    spoil(lab)
    with pytest.raises(HostError, match=message):
        _RestoreProvider().create(props())
    assert not {"stop", "pause", "replace", "start"} & set(lab.steps)


def test_restore_without_the_snapshots_of_a_silent_host(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.fails["list"] = {"a1"}
    _RestoreProvider().create(props())
    assert lab.variables["prepare"]["SHA256"] == "good"
    assert "the snapshots of a1 are not read" in capsys.readouterr().err


def test_restore_from_a_file(lab: Lab) -> None:
    _RestoreProvider().create(props("a2:/root/mine.db"))
    assert lab.variables["verify"] == {"FILE": "/root/mine.db"}
    assert "prepare a0 from a2" in lab.steps
    assert lab.variables["prepare"]["FILE"] == "/root/mine.db"
    assert "list" not in lab.steps


def test_restore_interrupted_with_a_quorum_is_finished(lab: Lab) -> None:
    _RestoreProvider().create(props())
    lab.pending, lab.steps = lab.variables["replace"]["RECORD"], []
    assert _RestoreProvider().check({}, props()).failures == []
    lab.steps.clear()
    outs = _RestoreProvider().create(props()).outs
    assert lab.steps == ["quorum", "pending", "hold", "resume", "finish"]
    assert outs is not None
    assert "2026-11-28T15:20:00Z newest" in outs["restored"]
    # Another restore is not this one.
    [failure] = _RestoreProvider().check({}, props("2026-11-28T15:00:00Z")).failures
    assert "the cluster has a quorum" in failure.reason


def test_restore_starts_all_again_if_a_client_does_not_stop(lab: Lab) -> None:
    lab.fails["pause"] = {"a2"}
    with pytest.raises(HostError, match="could not stop the datastore's clients: a2"):
        _RestoreProvider().create(props())
    assert lab.steps[-4:] == ["stop", "pause", "start", "resume"]


def test_restore_starts_the_members_again_if_one_does_not_stop(lab: Lab) -> None:
    lab.fails["stop"] = {"a1"}
    with pytest.raises(HostError, match="stop the member: a1: No route to host"):
        _RestoreProvider().create(props())
    assert lab.steps[-3:] == ["stop", "start", "resume"]


def test_restore_without_a_quorum_afterwards(lab: Lab) -> None:
    lab.becomes_healthy = False
    with pytest.raises(HostError, match="the restored cluster has no quorum"):
        _RestoreProvider().create(props())


def test_restore_is_done_when_a_client_does_not_resume(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.fails["resume"] = {"a2"}
    outs = _RestoreProvider().create(props()).outs
    assert outs is not None
    assert outs["restored"]
    assert "do not restore them again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["latest", "2026-11-28", "2026-11-28T15:00:00Z", "a0:/root/snapshot.db", ""]
)
def test_config_restore_from(value: str) -> None:
    config = EtcdConfig.model_validate({"restoreFrom": value})
    assert config.restore_host == ("a0" if value.startswith("a0") else "")


@pytest.mark.parametrize("value", ["newest", "a0:relative", "2026-13-01"])
def test_config_restore_from_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="must be 'latest', a time such as"):
        EtcdConfig.model_validate({"restoreFrom": value})


def with_restore(value: str) -> Program:
    document = copy.deepcopy(config_of("lab"))
    document["calico-lab:etcd"]["restoreFrom"] = value
    return run(document)


def test_restore_comes_between_the_members_and_the_gate() -> None:
    program = with_restore("latest")
    resource = program.named("etcd-restore")
    assert {program.named(f"{member}-etcd").urn for member in MEMBERS} <= resource.dependencies
    assert resource.urn in program.named("etcd-health").dependencies
    # What the program has written into the datastore since the snapshot is written again.
    assert "RESTORED" in program.named("calico-datastore").inputs["create"]
    assert resource.inputs["sources"] == list(MEMBERS)
    assert (PROJECT / resource.inputs["clients"]["hold"]).is_file()


def test_original_lab_has_no_restore() -> None:
    program = run(config_of("lab"))
    assert "etcd-restore" not in {resource.name for resource in program.resources}
    assert "RESTORED" not in program.named("calico-datastore").inputs["create"]


def test_config_host_of_the_file_is_refused() -> None:
    with pytest.raises(Exception, match=r"etcd\.restoreFrom: 'b0': must be one of"):
        with_restore("b0:/root/snapshot.db")


UTL = """
case "$*" in
*--help*) echo "{help}" ;;
*)
    data=$(sed -E 's/.*--data-dir ([^ ]+).*/\\1/' <<<"$*")
    mkdir -p "$data/member"
    cp "$3" "$data/member/db"
    ;;
esac
"""
DATA = "/var/lib/calico-lab/etcd"
STEP = {"MEMBER": "a1", "CLUSTER": "a1=https://a1:2380", "TOKEN": "t-2", "PEER_URL": "https://a1:2380"}


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    host = PretendHost(tmp_path)
    host.program("etcdutl", UTL.format(help="--bump-revision uint"))
    host.path("/var/lib/calico-lab").mkdir(parents=True)
    return host


def do(host: PretendHost, step: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step of `restore.sh`."""
    sha256 = hashlib.sha256(b"snapshot").hexdigest()
    own = {"STEP": step, "SHA256": sha256, "BUMP": "", "RECORD": "{}", **STEP, **variables}
    # The script reads all of standard input, as it does behind `remote.transfer`.
    return host.run(SCRIPTS / "restore.sh", own, stdin)


def test_prepare_restores_beside_the_data(host: PretendHost) -> None:
    host.write(f"{DATA}/member/db", "former")
    done = do(host, "prepare", "snapshot", BUMP="yes")
    assert done.returncode == 0, done.stderr
    [call] = [call for call in host.calls if call.startswith("etcdutl snapshot restore")]
    assert "--initial-cluster-token t-2" in call
    assert "--bump-revision 1000000000 --mark-compacted" in call
    assert host.path(f"{DATA}/member/db").read_text() == "former"
    assert host.path("/var/lib/calico-lab/etcd-restored/data/member/db").read_text() == "snapshot"


def test_prepare_refuses_what_has_arrived_damaged(host: PretendHost) -> None:
    done = do(host, "prepare", "snapsho")
    assert done.returncode == 1
    assert "a1: the snapshot has arrived damaged" in done.stderr


def test_replace_keeps_the_former_data(host: PretendHost) -> None:
    host.write(f"{DATA}/member/db", "former")
    host.write("/var/lib/calico-lab/etcd-begin.env", "")
    assert do(host, "prepare", "snapshot").returncode == 0
    assert do(host, "replace").returncode == 0
    assert host.path(f"{DATA}/member/db").read_text() == "snapshot"
    assert host.path("/var/lib/calico-lab/etcd-before-restore/db").read_text() == "former"
    assert not host.path("/var/lib/calico-lab/etcd-restored").exists()
    assert not host.path("/var/lib/calico-lab/etcd-begin.env").exists()


def test_replace_after_an_unfinished_restore_keeps_the_first_data(host: PretendHost) -> None:
    host.write(f"{DATA}/member/db", "former")
    for snapshot in ("snapshot", "snapshot"):
        assert do(host, "prepare", snapshot).returncode == 0
        assert do(host, "replace", RECORD='{"time": "x"}').returncode == 0
    assert host.path("/var/lib/calico-lab/etcd-before-restore/db").read_text() == "former"
    assert do(host, "pending").stdout == '{"time": "x"}\n'
    assert do(host, "finish").returncode == 0
    assert do(host, "pending").stdout == ""


@pytest.mark.parametrize(("text", "says"), [("--bump-revision uint", "yes\n"), ("--data-dir", "")])
def test_bumps(host: PretendHost, text: str, says: str) -> None:
    host.program("etcdutl", UTL.format(help=text))
    assert do(host, "bumps").stdout == says


CLIENTS = {"HOST": "a1", "NETWORK": "netv", "SECONDS_ALLOWED": "1"}


@pytest.fixture
def calico(host: PretendHost) -> PretendHost:
    host.program("calicoctl", f'case "$*" in apply*) cat >"{host.root}/applied" ;; esac')
    text = 'calicoctl() { command calicoctl "$@"; }\n'
    host.write("/etc/calico-lab/calico/environment.sh", text)
    return host


def test_hold_reserves_the_addresses_of_containers(calico: PretendHost) -> None:
    calico.program("docker", 'echo "192.168.0.65/32 192.168.0.101/32 "')
    assert calico.run(CALICO_SCRIPTS / "hold.sh", CLIENTS).returncode == 0
    applied = (calico.root / "applied").read_text()
    assert "kind: IPReservation" in applied
    assert "name: restored-a1" in applied
    assert applied.count("/32") == 2


def test_hold_without_containers(calico: PretendHost) -> None:
    calico.program("docker", "echo")
    assert calico.run(CALICO_SCRIPTS / "hold.sh", CLIENTS).returncode == 0
    assert not (calico.root / "applied").exists()


@pytest.mark.parametrize("reconciled", ["1795833601.000", "0.000"])
def test_resume_starts_felix_after_the_driver_has_reconciled(calico: PretendHost, reconciled: str) -> None:
    calico.program("timeout", f"echo calico_docker_reconciled_timestamp_seconds {reconciled}")
    done = calico.run(CALICO_SCRIPTS / "resume.sh", CLIENTS)
    felix = "systemctl restart calico-lab-felix.service calico-lab-confd.service"
    driver = "systemctl restart calico-lab-docker-driver.service"
    if reconciled == "0.000":
        assert done.returncode == 1
        assert "a1: calico: the driver has not compared" in done.stderr
        assert felix not in calico.calls
    else:
        assert done.returncode == 0, done.stderr
        assert calico.calls.index(driver) < calico.calls.index(felix)
        assert calico.calls[-1] == "calicoctl delete --skip-not-exists ipreservation restored-a1"


def test_clients_are_on_the_hosts_of_the_network() -> None:
    config = config_of("lab")["calico-lab:network"]
    network = CalicoConfig.model_validate(config)
    assert datastore_clients(network, MEMBERS).hosts == list(MEMBERS)
    some = CalicoConfig.model_validate({**config, "hosts": ["a1"]})
    assert datastore_clients(some, MEMBERS).hosts == ["a1"]
    assert datastore_clients(some, MEMBERS).variables["NETWORK"] == "netv"
