"""outputs: what is read from a stack, and errors."""

import json
from pathlib import Path

import pytest

from tests.unit.diagnosis.lab_cases import FOLDER, outputs
from workspace import outputs as stack


def test_etcd_endpoint_by_address() -> None:
    assert outputs().etcd_endpoint("a1") == "https://172.16.6.218:2379"
    assert outputs(etcdEndpoints=["https://172.16.6.44:2379"]).etcd_endpoint("a1") is None


@pytest.mark.parametrize(
    "key",
    [
        "hosts",
        "ssh",
        "etcdEndpoints",
        "network",
        "notebookUrl",
        "proxyUrl",
        "proxyUrls",
        "proxyAuthority",
        "firewall",
        "notebooks",
    ],
)
def test_parse_missing_output(key: str) -> None:
    document = json.loads((FOLDER / "healthy" / "outputs.json").read_text())
    del document[key]
    with pytest.raises(stack.StackError, match=f"stack lab has no output '{key}'.*next: pulumi up"):
        stack.parse(document, "lab")


def fake_pulumi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "pulumi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_read_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = FOLDER / "healthy" / "outputs.json"
    words = f'case "$*" in *--show-secrets*) exit 9 ;; *"--stack lab"*) cat "{sample}" ;; esac'
    fake_pulumi(tmp_path, monkeypatch, words)
    assert stack.read("lab").hosts["a0"] == "172.16.6.44"


def test_resources_of_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {
        "deployment": {
            "resources": [
                {"type": "pulumi:pulumi:Stack", "urn": "no outputs here"},
                {"type": "pulumi-python:dynamic/calico-lab:HostFirewall", "outputs": {"host": "a0"}},
                {"type": "calico-lab:index:FirewallPolicy", "outputs": {}},
                {"type": "x:HostFirewall", "outputs": {"host": "replaced"}, "delete": True},
            ]
        }
    }
    (tmp_path / "state.json").write_text(json.dumps(state))
    words = f'case "$*" in *--show-secrets*) exit 9 ;; "stack export"*) cat "{tmp_path}/state.json" ;; esac'
    fake_pulumi(tmp_path, monkeypatch, words)
    assert stack.resources("lab", "HostFirewall") == [{"host": "a0"}]
    (tmp_path / "state.json").write_text('{"deployment": {}}')
    assert stack.resources("lab", "HostFirewall") == []


def test_read_no_such_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pulumi(tmp_path, monkeypatch, "echo \"error: no stack named 'x' found\" >&2; exit 6")
    with pytest.raises(stack.StackError, match=r"stack x cannot be read: no stack named 'x' found; next: "):
        stack.read("x")


def test_read_without_pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(stack.StackError, match=r"pulumi is not on PATH; next: \. \./env\.sh"):
        stack.read("lab")
