"""The line of a value in the config file, which every message about the config begins with."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config.loading import ConfigError, load
from config.positions import line_of

PROJECT = Path(__file__).parents[3]
TEXT = (PROJECT / "Pulumi.lab.yaml").read_text()


def sections(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text)["config"])


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("network.cidr", "cidr: 192.168.0.0/16"),
        ("hosts.members.a1.address", "a1: {address: 172.16.6.218}"),
        ("firewall.policies.only-http.rules[2]", "lab-hosts, protocol: tcp, ports: [179"),
        ("firewall.policies.only-http.rules.2.ports", "lab-hosts, protocol: tcp, ports: [179"),
        ("firewall.policies.only-http.default", "default: drop"),
        # The nearest key above a missing one.
        ("firewall.policies.reject-mac.default", "reject-mac:"),
        ("notebook", "calico-lab:notebook:"),
    ],
)
def test_line_of_a_value(path: str, holds: str, tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.lab.yaml"
    file.write_text(TEXT)
    document = {key.removeprefix("calico-lab:"): value for key, value in sections(TEXT).items()}
    line = line_of(file, "calico-lab", document, path)
    assert line
    assert holds in TEXT.splitlines()[line - 1]


@pytest.mark.parametrize("path", ["nothing.of.it", "network.cidr", ""])
@pytest.mark.parametrize("text", [None, "", "config: [", "config: {calico-lab:network: {cidr: 10.0.0.0/8}}"])
def test_line_of_another_file(text: str | None, path: str, tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.lab.yaml"
    if text is not None:
        file.write_text(text)
    assert line_of(file, "calico-lab", {"network": {"cidr": "192.168.0.0/16"}}, path) is None


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab.[]01-: "))
def test_line_of_an_unknown_path(path: str) -> None:
    document = {key.removeprefix("calico-lab:"): value for key, value in sections(TEXT).items()}
    line = line_of(PROJECT / "Pulumi.lab.yaml", "calico-lab", document, f"network.{path}")
    assert line == TEXT.splitlines().index("  calico-lab:network:") + 1


@pytest.mark.parametrize(
    ("right", "wrong", "path"),
    [
        ("cidr: 192.168.0.0/16", "cidr: 192.168.0.1/16", "network.cidr"),
        ("order: 200", "order: -1", "firewall.policies.only-http.order"),
        ("port: 8888", "port: 88888", "proxy.port"),
    ],
)
def test_error_begins_with_its_line(
    right: str, wrong: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT.replace(right, wrong)
    monkeypatch.chdir(tmp_path)
    Path("Pulumi.lab.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(sections(text), "Pulumi.lab.yaml")
    number = next(n for n, line in enumerate(text.splitlines(), 1) if wrong in line)
    assert f"  line {number}: {path}: " in str(error.value)
