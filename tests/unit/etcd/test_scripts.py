"""The scripts of a member: start, what it reports, changes of the cluster, the readiness gate, removal."""

import json
import subprocess
from pathlib import Path

import pytest

from components.etcd import rendering as etcd
from tests.unit.pretend_host import PretendHost

HERE = Path(etcd.__file__).with_name("scripts")
HEALTHY = "is healthy: successfully committed proposal"
ACTIVE = "exit 0"
INACTIVE = '[ "$1" != is-active ] || exit 3'
STATE = "/var/lib/calico-lab"
WAL = f"{STATE}/etcd/member/wal/0.wal"
BEGIN = f"{STATE}/etcd-begin.env"


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    host = PretendHost(tmp_path)
    host.write("/etc/calico-lab/etcd/etcdctl.env", "ETCDCTL_ENDPOINTS=https://10.0.0.1:2379\n")
    host.write("/etc/calico-lab/etcd/etcd.env", "ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.2:2379\n")
    host.path(STATE).mkdir(parents=True)
    return host


def restarts(host: PretendHost) -> list[str]:
    return [call for call in host.calls if call.startswith(("systemctl restart", "systemctl start"))]


def test_member_without_data_is_not_started(host: PretendHost) -> None:
    # It would found a cluster of its own; only the gate knows whether there is one.
    host.program("systemctl", INACTIVE)
    assert host.run(HERE / "member.sh", {"HOST": "a1"}).returncode == 0
    assert restarts(host) == []
    assert "systemctl enable --quiet calico-lab-etcd.service" in host.calls


def test_a_member_that_has_stopped_is_started(host: PretendHost) -> None:
    host.write(WAL, "")
    host.program("systemctl", INACTIVE)
    assert host.run(HERE / "member.sh", {"HOST": "a1"}).returncode == 0
    assert restarts(host) == ["systemctl restart --no-block calico-lab-etcd.service"]


def test_running_member_waits_for_the_gate_to_restart_it(host: PretendHost) -> None:
    host.write(WAL, "")
    host.program("systemctl", ACTIVE)
    assert host.run(HERE / "member.sh", {"HOST": "a1"}).returncode == 0
    assert restarts(host) == []
    assert host.path(f"{STATE}/etcd-restart").exists()


@pytest.mark.parametrize(("wait", "option"), [("yes", ""), ("", "--no-block ")])
def test_member_restarts(host: PretendHost, wait: str, option: str) -> None:
    assert host.run(HERE / "restart-member.sh", {"WAIT": wait}).returncode == 0
    assert restarts(host) == [f"systemctl restart {option}calico-lab-etcd.service"]


BEGINNING = {
    "BEGINS": "existing",
    "INITIAL_CLUSTER": "a0=https://10.0.0.1:2380,a1=https://10.0.0.2:2380",
    "TOKEN": "one",
    "CLUSTER": "1a2b",
}


def test_member_begins_without_former_data(host: PretendHost) -> None:
    host.write(WAL, "")
    host.write(f"{STATE}/etcd/member/snap/db", "")
    host.program("systemctl", f'[ "$1" != start ] || cp {host.path(BEGIN)} {host.root}/started-with')
    assert host.run(HERE / "begin-member.sh", BEGINNING).returncode == 0
    assert not host.path(f"{STATE}/etcd/member").exists()
    assert host.path(f"{STATE}/etcd-cluster").read_text() == "1a2b\n"
    assert (host.root / "started-with").read_text() == (
        "ETCD_INITIAL_CLUSTER_STATE=existing\nETCD_INITIAL_CLUSTER_TOKEN=one\n"
        "ETCD_INITIAL_CLUSTER=a0=https://10.0.0.1:2380,a1=https://10.0.0.2:2380\n"
    )
    stopped, started = "systemctl stop calico-lab-etcd.service", "systemctl start --no-block"
    assert host.calls.index(stopped) < host.calls.index(f"{started} calico-lab-etcd.service")


def test_unit_reads_how_to_begin_after_its_settings() -> None:
    unit = (HERE.with_name("units") / etcd.UNIT).read_text().splitlines()
    read = [line.partition("=")[2] for line in unit if line.startswith("EnvironmentFile=")]
    assert read == [etcd.SETTINGS_FILE, f"-{BEGIN}"], "of two files the later one counts (systemd.exec(5))"
    # A member whose data are lost does not start at boot.
    conditions = [line.partition("=|")[2] for line in unit if line.startswith("ConditionPathExists=")]
    assert conditions == [str(Path(WAL).parent), BEGIN]
    assert f"ExecStartPre=+/bin/rm -f {STATE}/etcd-restart" in unit


SURVEY = {"CLUSTER": "1a2b", "METRICS_PORT": "1"}


def surveyed(host: PretendHost, **variables: str) -> dict[str, str]:
    """What a host reports, by fact."""
    done = host.run(HERE / "survey.sh", {**SURVEY, **variables})
    assert done.returncode == 0, done.stderr
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("identity", "data"), [("1a2b", "own"), ("3c4d", "other"), ("", "own"), (None, "own")]
)
def test_survey_knows_whose_data_they_are(host: PretendHost, identity: str | None, data: str) -> None:
    assert surveyed(host) == {"data": "none"}
    host.write(WAL, "")
    if identity is not None:
        host.write(f"{STATE}/etcd-cluster", identity)
    assert surveyed(host) == {"data": data}
    assert surveyed(host, CLUSTER="") == {"data": "own"}


@pytest.mark.parametrize(("identity", "was"), [("1a2b", True), ("3c4d", False), (None, False)])
def test_survey_knows_a_member_whose_data_are_lost(
    host: PretendHost, identity: str | None, was: bool
) -> None:
    if identity:
        host.write(f"{STATE}/etcd-was-healthy", f"{identity}\n")
    assert ("was-healthy" in surveyed(host)) == was
    assert "was-healthy" not in surveyed(host, CLUSTER="")


def test_survey_of_a_host_that_was_never_a_member(host: PretendHost) -> None:
    host.path("/etc/calico-lab/etcd/etcd.env").unlink()
    assert surveyed(host) == {}


def test_survey_of_a_member_that_begins_and_of_one_that_waits_for_a_restart(host: PretendHost) -> None:
    host.write(WAL, "")
    assert host.run(HERE / "begin-member.sh", BEGINNING).returncode == 0
    host.write(f"{STATE}/etcd-restart", "")
    assert surveyed(host) == {
        "data": "none",
        "begins": "existing",
        "initial": BEGINNING["INITIAL_CLUSTER"],
        "restart": "yes",
    }


METRICS = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if {healthy} else 503)
        self.end_headers()
        self.wfile.write(b'{body}')
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.handle_request()
"""


@pytest.mark.parametrize("healthy", [True, False])
def test_survey_of_a_healthy_member_has_the_list(host: PretendHost, healthy: bool) -> None:
    host.write(WAL, "")
    answers = {"endpoint status": [{"Status": {}}], "member list": {"members": []}}
    cases = "".join(f"*'{call}'*) echo '{json.dumps(said)}' ;; " for call, said in answers.items())
    host.program("etcdctl", f'[ "$ETCDCTL_ENDPOINTS" = https://10.0.0.2:2379 ]; case "$*" in {cases}esac')
    body = f'{{"health":"{str(healthy).lower()}"}}'
    server = METRICS.replace("{healthy}", str(healthy)).replace("{body}", body)
    with subprocess.Popen(["python3", "-c", server], stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout
        seen = surveyed(host, METRICS_PORT=member.stdout.readline().strip())
        member.kill()
    if healthy:
        assert seen == {
            "data": "own",
            "healthy": "yes",
            "status": '[{"Status": {}}]',
            "members": '{"members": []}',
        }
    else:
        assert seen == {"data": "own"}


def test_change_is_made_by_etcdctl_at_the_endpoints(host: PretendHost) -> None:
    host.program("etcdctl", 'echo "$ETCDCTL_ENDPOINTS"')
    variables = {"ENDPOINTS": "https://10.0.0.3:2379", "ARGUMENTS": "member remove 1a2b"}
    assert host.run(HERE / "change-members.sh", variables).stdout == "https://10.0.0.3:2379\n"
    assert host.calls == ["etcdctl --command-timeout=10s member remove 1a2b"]


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


def test_gate_ends_the_beginning_of_a_healthy_member(host: PretendHost) -> None:
    host.write(BEGIN, "ETCD_INITIAL_CLUSTER_STATE=new\n")
    host.program("etcdctl", "exit 1")
    assert host.run(HERE / "health.sh", GATE).returncode == 1
    assert host.path(BEGIN).exists()
    host.program("etcdctl", "")
    assert host.run(HERE / "health.sh", GATE).returncode == 0
    assert not host.path(BEGIN).exists()


def test_removal_leaves_no_data_and_may_be_repeated(host: PretendHost) -> None:
    host.write(WAL, "")
    for name in ("begin.env", "begin.env.new", "cluster", "restart"):
        host.write(f"{STATE}/etcd-{name}", "")
    host.program("systemctl", "exit 1")
    for _ in range(2):
        assert host.run(HERE / "remove-member.sh", {"HOST": "a1"}).returncode == 0
        assert list(host.path("/var/lib/calico-lab").iterdir()) == []
    assert "systemctl stop calico-lab-etcd.service" in host.calls
