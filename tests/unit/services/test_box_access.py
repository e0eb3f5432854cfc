"""The SSH files of the boxes, beside those of the hosts: what ssh(1) makes of them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.hosts import ssh
from components.services import box_access

HOST = {
    "alias": "a1",
    "address": "10.0.0.1",
    "port": 22,
    "user": "ops",
    "host_key": "ssh-ed25519 HOST",
    "lost": False,
}
BOX = {"alias": "sshbox", "address": "192.168.0.101", "host": "a0", "host_key": "ssh-ed25519 BOX"}
OTHER = {"alias": "sshbox-lab", "address": "192.168.0.102", "host": "a1", "host_key": "ssh-ed25519 OTHER"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ssh, "PROJECT", tmp_path)
    monkeypatch.setattr(box_access, "PROJECT", tmp_path)
    return tmp_path / "ssh"


def props(*boxes: dict[str, str]) -> dict[str, Any]:
    return {"folder": "ssh", "boxes": list(boxes), "keys": [f"KEY OF {box['alias']}\n" for box in boxes]}


def written(*boxes: dict[str, str]) -> dict[str, Any]:
    """Write the files of the hosts and of boxes."""
    ssh._SshAccessProvider().create({"folder": "ssh", "hosts": [HOST], "private_key": "KEY", "identity": ""})
    return box_access._BoxAccessProvider().create(props(*boxes)).outs or {}


def resolved(folder: Path, alias: str) -> dict[str, list[str]]:
    """The options of ssh(1) for a destination."""
    told = subprocess.run(
        ["ssh", "-G", "-F", str(folder / "config"), alias], capture_output=True, text=True, check=True
    )
    options: dict[str, list[str]] = {}
    for line in told.stdout.splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


def test_box_is_reached_by_its_host_and_its_host_key_is_pinned(project: Path) -> None:
    written(BOX, OTHER)
    options = resolved(project, "sshbox-lab")
    assert options["hostname"] == ["192.168.0.102"]
    assert options["user"] == ["admin"]
    assert options["proxyjump"] == ["a1"]
    assert options["hostkeyalias"] == ["sshbox-lab"]
    assert options["userknownhostsfile"] == [str(project / "boxes" / "known_hosts")]
    assert options["stricthostkeychecking"] == ["true"]
    assert options["identityfile"][0] == str(project / "boxes" / "sshbox-lab")
    assert (project / "boxes" / "known_hosts").read_text() == (
        "sshbox ssh-ed25519 BOX\nsshbox-lab ssh-ed25519 OTHER\n"
    )


def test_hosts_are_reached_as_without_boxes(project: Path) -> None:
    written()
    before = resolved(project, "a1")
    written(BOX, OTHER)
    assert resolved(project, "a1") == before
    assert before["identityfile"] == [str(project / "identity")]


def test_only_the_operator_reads_the_keys(project: Path) -> None:
    written(BOX, OTHER)
    for path in (project / "boxes").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert (project / "boxes").stat().st_mode & 0o777 == 0o700
    assert (project / "boxes" / "sshbox-lab").read_text() == "KEY OF sshbox-lab\n"


def test_files_of_a_box_go_with_it_and_those_of_others_stay(project: Path) -> None:
    state = written(BOX, OTHER)
    provider = box_access._BoxAccessProvider()
    assert provider.diff("", state, props(BOX)).changes
    state = provider.update("", state, props(BOX)).outs or {}
    assert {path.name for path in (project / "boxes").iterdir()} == {"config", "known_hosts", "sshbox"}
    assert not provider.diff("", state, props(BOX)).changes
    # An update of the hosts' files leaves those of the boxes.
    ssh._SshAccessProvider().update("", {}, {"folder": "ssh", "hosts": [HOST], "identity": "/home/op/id"})
    assert not (project / "identity").exists()
    assert resolved(project, "sshbox")["proxyjump"] == ["a0"]
    provider.delete("", state)
    assert not (project / "boxes").exists()
    assert (project / "config").exists()


@pytest.mark.parametrize("name", ["config", "sshbox"])
def test_a_missing_file_is_written_again(project: Path, name: str) -> None:
    state = written(BOX)
    (project / "boxes" / name).unlink()
    provider = box_access._BoxAccessProvider()
    assert provider.diff("", state, props(BOX)).changes
    provider.update("", state, props(BOX))
    assert (project / "boxes" / name).exists()
