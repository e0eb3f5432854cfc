"""`lab why`: what hosts are asked, and the output; `why.json` has the cases."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.hosts import remote
from diagnosis import packet_scripts as scripts
from lab import __main__ as command
from lab import config
from tests.unit.diagnosis import lab_cases
from workspace import outputs as stack

HERE = Path(__file__).parent
CASES: dict[str, Any] = json.loads((HERE / "why.json").read_text())


class Hosts:
    """Takes the place of the lab's hosts, and records what they are asked."""

    def __init__(self, host: Mapping[str, Any]) -> None:
        self.host = host
        self.traced: Mapping[str, str] | None = None
        self.sent: dict[str, Mapping[str, str]] = {}

    def run(self, ssh: str, script: str, variables: Mapping[str, str], seconds: float) -> remote.Answer:
        """Takes the place of `remote.run`."""
        assert seconds > int(variables["DURATION"])
        host = ssh.rsplit(maxsplit=1)[-1] if ssh.startswith("ssh ") else "controller"
        if script == scripts.SEND_SCRIPT.read_text():
            self.sent[host] = variables
            unsent = self.host.get("unsent", "")
            return remote.Answer(1 if unsent else 0, "", unsent)
        assert host == "a0"
        self.traced = variables
        text = "\n".join(self.host["text"])
        return remote.Answer(self.host.get("status", 0), text, self.host.get("error", ""))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # JSON is YAML.
    (tmp_path / "Pulumi.lab.yaml").write_text((HERE / "config.json").read_text())
    monkeypatch.setattr(config, "read_config", lambda name, read=config.read_config: read(name, tmp_path))
    monkeypatch.setattr(stack, "read", lambda name: lab_cases.outputs())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_why_output(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(case.get("host", {}))
    monkeypatch.setattr(remote, "run", hosts.run)
    result = CliRunner().invoke(command.main, ["why", *case["ask"]])
    assert result.output.splitlines() == case["lines"]
    assert result.exit_code == case["exit"]
    assert hosts.traced == case.get("traced")
    assert hosts.sent == case.get("sent", {})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_why_json_has_what_text_has(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "run", Hosts(case.get("host", {})).run)
    result = CliRunner().invoke(command.main, ["why", "--json", *case["ask"]])
    assert result.exit_code == case["exit"]
    document = json.loads(result.output)
    text = "\n".join(case["lines"])
    for part in (document["reason"], document["path"], *document["rule"]):
        assert part is None or part in text
    assert ("live" in document) == ("--live" in case["ask"])
    if "live" in document:
        assert bool(document["live"]["finding"]) == bool(case["exit"])
        assert document["live"]["finding"] in (None, case["lines"][-1])
        assert document["live"]["verdict"] == {"stops": "drop", "lets": "accept"}.get(
            text.partition("the kernel ")[2].split(" ")[0] if "On a0" in text else ""
        )


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            ["nobody", "a0", "tcp/80"],
            "nobody: is neither an address nor one of a0, a1, a2, visitor, operator",
        ),
        (
            ["a1", "visitor", "tcp/80"],
            "visitor: is not a host of the lab; they are a0, a1, a2. For containers, to which network "
            "policies apply, run lab trace",
        ),
        (["a1", "a0", "http"], "http: must be like tcp/2380, udp/53, icmp or icmp/echo-request"),
        (["fd00::1", "a0", "tcp/80", "--live"], "fd00::1 cannot send to 172.16.6.44, the address of a0"),
        (["--", "a1", "a0"], "Missing argument 'PROTO/PORT'"),
    ],
)
def test_why_wrong_usage(ask: list[str], said: str) -> None:
    result = CliRunner().invoke(command.main, ["why", *ask])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nowhere", None, "Pulumi.nowhere.yaml is not in"),
        ("lab", "config: [", "Pulumi.lab.yaml is not YAML"),
        ("lab", "config: {calico-lab:hosts: {provider: docker}}", "Pulumi.lab.yaml has"),
        ("lab", "", "etcd: this key is required"),
    ],
)
def test_why_without_config(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / f"Pulumi.{name}.yaml").write_text(text)
    result = CliRunner().invoke(
        command.main, ["--stack", f"organization/calico-lab/{name}", "why", "a1", "a0", "icmp"]
    )
    assert result.exit_code == 2
    assert said in result.output


def test_why_live_host_not_in_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "read", lambda name: lab_cases.outputs(ssh={}))
    result = CliRunner().invoke(command.main, ["why", "a1", "a0", "tcp/80", "--live"])
    assert result.exit_code == 2
    assert "a0 is in the config, but not in the stack; next: pulumi up" in result.output


def test_why_help_names_table() -> None:
    # Lines are broken at hyphens too.
    text = "".join(CliRunner().invoke(command.main, ["why", "--help"]).output.split())
    assert "hasatablecalico-lab-trace" in text
    assert "goeswhenthetraceends" in text
