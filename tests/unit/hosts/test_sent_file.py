"""SentFile: which hosts get a file, and how. A local shell takes the place of ssh."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from components.hosts import remote
from components.hosts.remote import HostError
from components.hosts.sent_file import _SentFileProvider, missing

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "archive"
    file.write_bytes(CONTENT)
    return file


def props(source: Path, hosts: dict[str, str], **changed: str) -> dict[str, Any]:
    """The properties of a file whose hosts are folders beside it."""
    for host in hosts:
        (source.parent / host).mkdir(exist_ok=True)
    shells = {host: f"env -C {shlex.quote(str(source.parent / host))} sh -c" for host in hosts}
    described = {"source": str(source), "digest": "1", "target": "./it's sent"}
    return {**described, "hosts": hosts, "ssh": shells, **changed}


def received(source: Path) -> set[str]:
    """The hosts that have the file."""
    files = source.parent.glob("*/it's sent")
    return {file.parent.name for file in files if file.read_bytes() == CONTENT}


def test_create_sends_the_file_to_all_hosts(source: Path) -> None:
    _SentFileProvider().create(props(source, {"a0": "1", "a1": "2"}))
    assert received(source) == {"a0", "a1"}
    sent = source.parent / "a0" / "it's sent"
    assert sent.stat().st_mode & 0o777 == 0o600
    assert list(sent.parent.iterdir()) == [sent]


def test_update_sends_the_file_to_hosts_that_were_added_or_replaced(source: Path) -> None:
    before, after = {"a0": "1", "a1": "2"}, {"a0": "1", "a1": "3", "a2": "4"}
    _SentFileProvider().update("", props(source, before), props(source, after))
    assert received(source) == {"a1", "a2"}


@pytest.mark.parametrize("changed", ["digest", "target"])
def test_a_changed_file_is_missing_on_all_hosts(source: Path, changed: str) -> None:
    hosts = {"a0": "1", "a1": "2"}
    assert missing(props(source, hosts), props(source, hosts, **{changed: "another"})) == ["a0", "a1"]


def test_diff_of_the_ssh_commands_is_no_change(source: Path) -> None:
    given = props(source, {"a0": "1"})
    assert _SentFileProvider().diff("", given, {**given, "ssh": {"a0": "ssh"}}).changes is False
    assert _SentFileProvider().diff("", given, props(source, {"a0": "2"})).changes is True


def test_create_names_each_host_that_failed(source: Path) -> None:
    given = props(source, {"a0": "1", "a1": "2", "a2": "3"})
    given["ssh"]["a1"] = "sh -c 'echo no route to host >&2; exit 255'"
    with pytest.raises(
        HostError, match=r"^a1: .*archive was not copied to .*: no route to host\nnext: .*again$"
    ):
        _SentFileProvider().create(given)
    assert received(source) == {"a0", "a2"}


def test_send_over_a_connection_that_ends_early_leaves_no_file(source: Path) -> None:
    host = f"env -C {shlex.quote(str(source.parent))} sh -c 'head -c 1000 | sh -c \"$0\"'"
    assert remote.send(host, source, "./target", 30).status
    assert not (source.parent / "target").exists()
