"""`lab status`, `lab graph` and `lab doctor` on the running lab, healthy and with a stopped etcd member."""

import json
import subprocess
from typing import Any

from components.hosts import remote
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import PROJECT, Outputs

KEYS = {
    *("stack", "healthy", "findings", "warnings", "hosts", "etcd", "calico", "bgp", "containers"),
    *("firewall", "urls", "alarms", "snapshots"),
}
ETCD = "calico-lab-etcd.service"


def lab_status(*arguments: str, stack: str) -> tuple[int, str]:
    return lab("status", *arguments, stack=stack)


def lab(*arguments: str, stack: str) -> tuple[int, str]:
    done = subprocess.run(
        ["lab", "--stack", stack, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_status_healthy(outputs: Outputs, program: Program) -> None:
    code, text = lab_status(stack=program.stack)
    assert code == 0, text
    for part in (*outputs.hosts, *outputs.hosts.values(), *outputs.etcd_endpoints, outputs.notebook_url):
        assert part in text


def test_status_json(outputs: Outputs, program: Program, token: str) -> None:
    code, text = lab_status("--json", stack=program.stack)
    told: dict[str, Any] = json.loads(text)
    assert code == 0, told["findings"]
    assert set(told) == KEYS
    assert told["healthy"] is True
    assert [host["name"] for host in told["hosts"] if host["member"]] == list(outputs.hosts)
    assert all(host["reachable"] and host["release"] and host["uptimeSeconds"] for host in told["hosts"])
    assert all(member["healthy"] and member["databaseBytes"] for member in told["etcd"])
    assert [member["leader"] for member in told["etcd"]].count(True) == 1
    assert told["alarms"] == []
    assert {snapshot["host"] for snapshot in told["snapshots"]} == set(outputs.hosts)
    assert {session["state"] for session in told["bgp"]} == {"Established"}
    assert all(host["felixReady"] and host["driverReady"] and host["network"] for host in told["calico"])
    assert "192.168.0.100" in [container["address"] for container in told["containers"]]
    assert told["urls"]["notebookStatus"] == 200
    assert token not in text


def test_graph(outputs: Outputs, program: Program) -> None:
    code, text = lab("graph", stack=program.stack)
    assert code == 0
    for host, address in outputs.hosts.items():
        assert f"{host} {address}" in text
    assert "calico-lab-notebook<br>192.168.0.100" in text
    code, text = lab("graph", "--json", stack=program.stack)
    told = json.loads(text)
    assert all(one["well"] for kind in ("groups", "nodes", "edges") for one in told[kind]), text
    sessions = [edge["ends"] for edge in told["edges"] if edge["label"] == "BGP"]
    assert len(sessions) == len(outputs.hosts) * (len(outputs.hosts) - 1) / 2
    assert ["a2/calico-lab-proxy", "a1/calico-lab-notebook"] in [edge["ends"] for edge in told["edges"]]


def test_doctor_healthy(program: Program) -> None:
    code, text = lab("doctor", stack=program.stack)
    assert code == 0, text


def test_status_names_a_stopped_member(outputs: Outputs, program: Program) -> None:
    host = list(outputs.hosts)[1]
    ssh = outputs.ssh[host]
    assert remote.run(ssh, f"systemctl stop {ETCD}").status == 0
    try:
        code, text = lab_status("--json", stack=program.stack)
        told = json.loads(text)
        assert code == 1
        assert {finding["where"] for finding in told["findings"]} == {host}
        assert any("its etcd member is not healthy" in finding["what"] for finding in told["findings"])
        code, text = lab_status(stack=program.stack)
        assert code == 1
        assert f"{host}: its etcd member is not healthy" in text
    finally:
        started = remote.run(ssh, f"systemctl start {ETCD}", seconds=60)
    assert started.status == 0, started.error

    def healthy() -> None:
        code, text = lab_status(stack=program.stack)
        assert code == 0, text

    eventually(healthy, seconds=30)
