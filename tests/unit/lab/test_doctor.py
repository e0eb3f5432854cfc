"""`lab doctor`: from facts of hosts to findings; `doctor.json` has the cases."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from components.calico import settings
from components.hosts import config as hosts_config
from components.hosts import remote
from config.loading import load
from config.model import LabConfig
from diagnosis import status
from diagnosis.tcp_probe import PROBE_SCRIPT
from lab import __main__ as command
from lab import config as lab_config
from lab.doctor import candidate, checkup, controller, findings
from tests.unit.diagnosis import lab_cases
from workspace import outputs as stack

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "doctor.json").read_text())
CONFIG: dict[str, Any] = json.loads((Path(__file__).parent / "config.json").read_text())["config"]
MEMBERS = {"d0": "172.30.96.10", "d1": "172.30.96.11", "d2": "172.30.96.12"}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKrKFrPX9dBSwBkVq8IZimqzXzO1ht5rG9rLdOryGwdj"
SECTIONS = ("network", "etcd", "proxy", "notebook")
NOW = 1000000.0


@pytest.fixture(autouse=True)
def any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test logs in to a host."""
    monkeypatch.setattr(hosts_config, "unusable_key", lambda _: None)


def config(
    network: dict[str, Any] | None = None,
    etcd: dict[str, Any] | None = None,
    proxy: dict[str, Any] | None = None,
    notebook: dict[str, Any] | None = None,
    **hosts: Any,  # noqa: ANN401 - of any key
) -> LabConfig:
    """A config with three existing hosts."""
    members = {name: {"address": address, "hostKey": HOST_KEY} for name, address in MEMBERS.items()}
    existing = {
        "provider": "existing",
        "privateKey": __file__,
        "members": members,
        **hosts,
    }
    return load(
        {
            **CONFIG,
            "calico-lab:hosts": existing,
            "calico-lab:etcd": {"members": list(MEMBERS), "token": "t", **(etcd or {})},
            "calico-lab:network": {**CONFIG["calico-lab:network"], **(network or {})},
            "calico-lab:notebook": {"host": "d1", "address": "192.168.0.100", **(notebook or {})},
            "calico-lab:sshBox": {"host": "d0", "address": "192.168.0.101"},
            "calico-lab:proxy": {"host": "d2", "port": 8888, **(proxy or {})},
            "calico-lab:firewall": {},
        },
        "Pulumi.doc.yaml",
    )


def healthy(name: str, addresses: str) -> remote.Answer:
    """The facts of a host that can carry a lab."""
    lines = [
        "release Debian GNU/Linux 12 (bookworm)",
        "cpus 2",
        "memory 4194304",
        "total 8388608",
        "disk 41943040",
        f"clock {NOW}",
        'listener LISTEN 0      128       0.0.0.0:22    0.0.0.0:* users:(("sshd",pid=392,fd=3))',
        "listener LISTEN 0      4096   127.0.0.11:40103 0.0.0.0:*",
        *(rf"route {other} dev eth0 src {MEMBERS[name]} uid 0 \    cache" for other in addresses.split()),
        "complete yes",
    ]
    return remote.Answer(0, "\n".join(lines), "")


def pretend(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    """Lets hosts answer as a case says."""

    def run(ssh: str, script: str, variables: dict[str, str], *_: object, **__: object) -> remote.Answer:
        name = ssh.rsplit(maxsplit=1)[-1]
        changes = case.get("machines", {}).get(name, {})
        if script == checkup.PREPARE_SCRIPT.read_text():
            assert variables["CHECK_ONLY"]
            return remote.Answer(changes.get("status", 0), "", changes.get("error", ""))
        if script == PROBE_SCRIPT.read_text():
            refused = dict.fromkeys(variables["TARGETS"].split(), "refused")
            changed = changes.get("replies", refused)
            # No replies: nothing was probed.
            replies = {**refused, **changed} if changed else {}
            lines = [f"{reply} {target} {MEMBERS[name]}" for target, reply in replies.items()]
            return remote.Answer(0, "\n".join(lines), "")
        if script == candidate.FACTS_SCRIPT.read_text():
            return lab_cases.edited(healthy(name, variables["ADDRESSES"]), changes)
        refusal = case.get("refusals", {}).get(name, "")
        return remote.Answer(3 if refusal else 0, "", refusal)

    monkeypatch.setattr(controller, "_ENGINE", ["echo", "/nowhere"])
    monkeypatch.setattr(remote, "run", run)
    monkeypatch.setattr(settings, "run", run)
    monkeypatch.setattr("lab.doctor.checkup.time.time", lambda: NOW)
    monkeypatch.setattr(
        lab_config, "read_config", lambda name: config(**{key: case[key] for key in SECTIONS if key in case})
    )
    monkeypatch.setattr(stack, "read", no_lab)


def no_lab(name: str) -> stack.Outputs:
    """There is no lab yet.

    Raises:
        StackError: Always.
    """
    raise stack.StackError(f"stack {name} has no outputs")


@pytest.mark.parametrize("name", CASES)
def test_doctor_findings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    pretend(monkeypatch, case)
    told = CliRunner().invoke(command.main, ["doctor", "--json"])
    document = json.loads(told.output)
    assert [[finding["where"], finding["what"]] for finding in document["findings"]] == case["findings"]
    assert all(finding["next"] for finding in document["findings"]), "each finding has a next step"
    assert document["fit"] == (not case["findings"])
    assert [machine["name"] for machine in document["machines"]] == list(MEMBERS)
    shown = CliRunner().invoke(command.main, ["doctor"])
    assert shown.exit_code == told.exit_code == (1 if case["findings"] else 0)
    assert ("Nothing stands in the way" in shown.output) == (not case["findings"])
    for where, what in case["findings"]:
        assert f"{where}: {what}" in shown.output


@pytest.mark.parametrize(
    ("etcd", "line"),
    [
        ({}, "another host in its place in etcd.members: [d0, d1, d2]"),
        ({"members": ["d0"]}, ""),
        ({"members": ["d1"]}, ""),
    ],
    ids=["it is one of three members", "it is no member", "it is the only member"],
)
def test_doctor_names_the_line_of_a_dead_member(
    etcd: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {**CASES["ssh does not answer"], "etcd": etcd})
    [finding] = json.loads(CliRunner().invoke(command.main, ["doctor", "--json"]).output)["findings"]
    assert finding["where"] == "d1"
    assert ("if it is gone for good" in finding["next"]) == bool(line)
    assert line in finding["next"]


@pytest.mark.parametrize("provider", ["docker", "existing"])
@pytest.mark.parametrize(
    ("case", "shown", "says"),
    [
        ("healthy", "824 days", ""),
        ("certificates-end-soon", "29 days", "a1: certificates end soon: "),
        ("certificates-ended", "ended", "a1: certificates have ended: "),
    ],
)
def test_doctor_certificates(
    provider: str, case: str, shown: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {})
    monkeypatch.setattr(controller, "interface_in", lambda network, routes: None)
    if provider == "docker":
        monkeypatch.setattr(lab_config, "read_config", lambda name: load(CONFIG, "Pulumi.lab.yaml"))
    path = lab_cases.FOLDER / "cases" / f"{case}.json"
    said = lab_cases.status(json.loads(path.read_text()))
    monkeypatch.setattr(stack, "read", lambda name: said.outputs)
    monkeypatch.setattr(status, "ask", lambda outputs: said.hosts)
    table = CliRunner().invoke(command.main, ["doctor"])
    told = json.loads(CliRunner().invoke(command.main, ["doctor", "--json"]).output)
    # It stands in the way of no update: that is what ends it.
    assert table.exit_code == 0
    assert told["fit"]
    assert shown in table.output
    assert says in table.output
    assert [warning["where"] for warning in told["warnings"]] == (["a1"] if says else [])
    assert all(warning["next"] == "pulumi up --stack lab" for warning in told["warnings"])
    assert [len(host["certificates"]) for host in told["lab"]] == [4, 4, 4, 0]


@pytest.mark.parametrize(
    ("case", "key", "where", "next_step"),
    [
        ("etcd-alarm-nospace", "findings", "a1", "on a1: etcdctl defrag --cluster"),
        ("etcd-without-quorum", "findings", "etcd", "start the members that are stopped"),
        ("snapshots-old", "warnings", "a1", "on a1: systemctl start calico-lab-snapshot"),
        ("snapshots-failed-or-damaged", "warnings", "a1", "on a1: systemctl start calico-lab-snapshot"),
    ],
)
def test_doctor_etcd_data(
    case: str, key: str, where: str, next_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {})
    said = lab_cases.status(json.loads((lab_cases.FOLDER / "cases" / f"{case}.json").read_text()))
    monkeypatch.setattr(stack, "read", lambda name: said.outputs)
    monkeypatch.setattr(status, "ask", lambda outputs: said.hosts)
    found = json.loads(CliRunner().invoke(command.main, ["doctor", "--json"]).output)[key]
    assert {one["where"] for one in found} == {where}
    assert all(one["next"].startswith(next_step) for one in found)


def test_look_tries_flows_between_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    seen = checkup.look(config())
    assert set(seen.candidates["d0"].connections) == {
        (address, port) for address in (MEMBERS["d1"], MEMBERS["d2"]) for port in (179, 2379, 2380)
    }


@given(st.data())
def test_parse_incomplete_answer(data: st.DataObject) -> None:
    whole = healthy("d0", "172.30.96.11").text
    part = whole[: data.draw(st.integers(0, len(whole) - len(" yes") - 1))]
    facts = remote.Answer(255, part, "Connection reset")
    parsed = candidate.parse(facts, remote.Answer(0, "", ""), MEMBERS["d0"], (NOW, NOW))
    assert parsed.error == "Connection reset"


def test_findings_unknown_host_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{MEMBERS['d0']} {HOST_KEY}\n{MEMBERS['d2']} {HOST_KEY}\n")
    pretend(monkeypatch, {})
    members = {name: {"address": address} for name, address in MEMBERS.items()}
    seen = checkup.look(config(members=members, knownHosts=str(known)))
    [found] = findings.findings(seen)
    assert found.where == "d1"
    assert found.what == f"the host key of 172.30.96.11 is not in {known}"
    assert found.next.startswith("log in once with ssh and compare the fingerprint")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (subprocess.TimeoutExpired("docker", 20), "timed out after 20 seconds"),
        (subprocess.CalledProcessError(1, "docker", "", "Cannot connect to the daemon\n"), "Cannot connect"),
    ],
)
def test_findings_no_engine(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    pretend(monkeypatch, {})
    monkeypatch.setattr("subprocess.run", fail)
    [found] = findings.findings(checkup.look(config()))
    assert found.where == "the controller"
    assert found.what.startswith("Docker does not answer: ")
    assert said in found.what


def test_findings_hosts_that_up_creates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "interface_in", lambda network, routes: "wg0 (172.16.0.0/12)")
    monkeypatch.setattr(
        "subprocess.run", lambda *_, **__: subprocess.CompletedProcess("docker", 0, "/nowhere\n", "")
    )
    seen = checkup.look(load(CONFIG, "Pulumi.lab.yaml"))
    assert seen.candidates == {}
    [found] = findings.findings(seen)
    assert found.what == "hosts.network 172.16.6.0/24 is in use by wg0 (172.16.0.0/12)"


def test_findings_disk_of_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(controller, "interface_in", lambda network, routes: None)
    monkeypatch.setattr(
        "subprocess.run",
        lambda *_, **__: subprocess.CompletedProcess("docker", 0, f"{tmp_path}\n", ""),
    )
    monkeypatch.setattr(controller, "NEEDED_DISK", 1 << 60)
    [found] = findings.findings(checkup.look(load(CONFIG, "Pulumi.lab.yaml")))
    assert f"are free in {tmp_path}, and the lab needs" in found.what


def test_doctor_without_config(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(command.main, ["--stack", "nowhere", "doctor"])
    assert result.exit_code == 2
    assert "Pulumi.nowhere.yaml is not in" in result.output
