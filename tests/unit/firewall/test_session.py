"""HostSession: `firewall.sh` is sent, unpacked and run, and leaves no temporary file."""

import os
from pathlib import Path

import pytest

from components.firewall import session
from components.firewall.session import HostSession, new_connection
from components.hosts.remote import HostError


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostSession:
    """A session whose ssh command is a local shell, as root."""
    root = "" if os.geteuid() == 0 else "unshare --map-root-user "
    monkeypatch.setattr(session, "new_connection", lambda *_: f"{root}sh -c")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return HostSession("a0", "ssh://a0", "config")


def test_run_verb_sends_the_script_and_reports_its_error(host: HostSession, tmp_path: Path) -> None:
    with pytest.raises(HostError) as error:
        host.run_verb("no-such", "verb", documents={"rules.v4": "", "sets": "add x 10.0.0.1\n" * 10_000})
    assert str(error.value) == "a0: firewall: no-such: firewall: no such verb: 'no-such'"
    assert list(tmp_path.iterdir()) == []


def test_operator_address_is_the_first_word_of_ssh_connection(
    host: HostSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "172.16.6.1 40000 172.16.6.44 22")
    assert host.operator_address() == "172.16.6.1"


def test_new_connection_quotes_the_config_and_shares_no_connection() -> None:
    assert new_connection("a b/config", "a0") == (
        "ssh -F 'a b/config' -o ControlMaster=no -o ControlPath=none -o BatchMode=yes -o ConnectTimeout=10 a0"
    )
