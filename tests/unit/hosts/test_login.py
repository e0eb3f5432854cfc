"""How the operator logs in to hosts that exist: a key file that ssh can use, or the ssh-agent."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from components.hosts.config import ExistingHosts


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return made(tmp_path / "key", "")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield
    process.terminate()
    process.wait(10)


def made(path: Path, passphrase: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
    return path


def hosts(**login: str) -> ExistingHosts:
    section: dict[str, Any] = {"provider": "existing", "members": {"a": {"address": "10.0.0.1"}}, **login}
    return TypeAdapter(ExistingHosts).validate_python(section)


def refused(**login: str) -> str:
    with pytest.raises(ValidationError) as error:
        hosts(**login)
    return str(error.value)


def test_a_key_is_used_where_it_is(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(key.parent))
    assert hosts(privateKey="~/key").identity == key


def test_a_key_with_a_passphrase_is_for_the_agent(tmp_path: Path) -> None:
    path = made(tmp_path / "key", "of this test")
    assert f"has a passphrase; 'ssh-add {path}', and leave privateKey out" in refused(privateKey=str(path))


def test_a_key_that_others_may_read_is_refused_as_by_ssh(key: Path) -> None:
    key.chmod(0o644)
    assert f"'chmod 600 {key}'" in refused(privateKey=str(key))


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key\n")
    (tmp_path / "key").chmod(0o600)
    assert "cannot be used" in refused(privateKey=str(tmp_path / "key"))


def test_without_a_key_there_has_to_be_an_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "SSH_AUTH_SOCK is not set" in refused()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert "the ssh-agent does not answer" in refused()


@pytest.mark.usefixtures("agent")
def test_the_agent_has_to_have_a_key(key: Path) -> None:
    assert "the ssh-agent has no key; 'ssh-add'" in refused()
    subprocess.run(["ssh-add", "-q", key], check=True)
    assert hosts().identity is None
