"""The pure parts of the hosts: what is sent to a shell, what ssh reads, what the config refuses."""

import json
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi import RunError
from pydantic import TypeAdapter, ValidationError

from components.hosts import container as machine
from components.hosts.config import HostsConfig
from components.hosts.container import interface_in
from components.hosts.known import pinned_key
from components.hosts.remote import as_root, with_variables
from components.hosts.ssh import render_config, render_known_hosts

CASES = Path(__file__).parent / "cases"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


# A process takes as long as the machine is busy.
@settings(deadline=None)
@given(TEXT)
def test_a_variable_arrives_in_the_script_as_it_is(value: str) -> None:
    script = as_root("bash", "-c", with_variables('printf %s "$VALUE"', {"VALUE": value}))
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout == value.encode()


@pytest.mark.parametrize("user", [0, 1000])
def test_as_root_uses_sudo_for_a_sudoer_only(tmp_path: Path, user: int) -> None:
    """With sudo the operator's address arrives too, and sudo never asks for a password."""
    for name, text in {"id": f"echo {user}", "sudo": 'echo "sudo $1"; shift; exec "$@"'}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}
    shown = 'echo "it\'s $SSH_CONNECTION"'
    done = subprocess.run(
        ["sh", "-c", as_root("sh", "-c", shown)], capture_output=True, text=True, check=True, env=environment
    )
    sudo = "sudo -n\n" if user else ""
    assert done.stdout == f"{sudo}it's 192.0.2.1 5 192.0.2.2 22\n"


@pytest.mark.parametrize("case", sorted((CASES / "refused").glob("*.json")), ids=lambda path: path.stem)
def test_a_wrong_hosts_section_is_refused(case: Path) -> None:
    spec = json.loads(case.read_text())
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(HostsConfig).validate_python(spec["hosts"])
    assert spec["message"] in str(refused.value)


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
{interface}\t000610AC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("interface", "network", "found"),
    [
        ("eth1", "172.16.6.0/24", "eth1 (172.16.6.0/24)"),
        ("eth1", "172.16.0.0/16", "eth1 (172.16.6.0/24)"),
        ("eth1", "172.16.7.0/24", None),
        ("br-calico-lab", "172.16.6.0/24", None),
    ],
)
def test_a_network_in_use_is_found(interface: str, network: str, found: str | None) -> None:
    assert interface_in(IPv4Network(network), ROUTES.format(interface=interface)) == found


HOSTS = [
    {"alias": "a0", "address": "172.16.6.44", "port": 22, "user": "root", "host_key": "ssh-ed25519 AAAA"},
    {"alias": "b", "address": "10.0.0.9", "port": 2222, "user": "ops", "host_key": "ssh-ed25519 BBBB"},
]


def test_ssh_finds_each_host_with_pinned_keys_only(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(render_config(tmp_path, HOSTS, tmp_path / "key"))
    shown = subprocess.run(
        ["ssh", "-G", "-F", config, "b"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(line.split(" ", 1) for line in shown.splitlines())
    assert (settings["hostname"], settings["port"], settings["user"]) == ("10.0.0.9", "2222", "ops")
    assert settings["stricthostkeychecking"] == "true"
    assert settings["userknownhostsfile"] == f"{tmp_path}/known_hosts"
    assert (settings["identitiesonly"], settings["identityfile"]) == ("yes", f"{tmp_path}/key")


def test_known_hosts_names_the_port_where_it_is_not_22() -> None:
    assert render_known_hosts(HOSTS) == "172.16.6.44 ssh-ed25519 AAAA\n[10.0.0.9]:2222 ssh-ed25519 BBBB\n"


def test_the_operators_known_hosts_pins_the_key_hashed_or_not(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    known = tmp_path / "known_hosts"
    known.write_text(f"10.0.0.9 ssh-rsa AAAA\n10.0.0.9 {public}\n[10.0.0.9]:2222 {public}\n")
    assert pinned_key("10.0.0.9", 22, known) == public
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert pinned_key("10.0.0.9", 2222, known) == public
    with pytest.raises(RunError, match=r"10\.0\.0\.8 is not in .*ssh-keyscan"):
        pinned_key("10.0.0.8", 22, known)


def test_plan_changes_with_what_replaces_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "context_digest", lambda _: "image")
    network = IPv4Network("172.16.6.0/24")
    plans = [
        machine.replacement_digest(network, "trixie", "172.16.6.44", None),
        machine.replacement_digest(network, "bookworm", "172.16.6.44", None),
        machine.replacement_digest(network, "trixie", "172.16.6.45", None),
        machine.replacement_digest(network, "trixie", "172.16.6.44", "02:42:ac:10:06:42"),
        machine.replacement_digest(IPv4Network("172.16.0.0/16"), "trixie", "172.16.6.44", None),
    ]
    monkeypatch.setattr(machine, "context_digest", lambda _: "another")
    plans.append(machine.replacement_digest(network, "trixie", "172.16.6.44", None))
    assert len(set(plans)) == len(plans)
