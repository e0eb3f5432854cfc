"""The files of the SSH access, and hosts that leave the lab or change their addresses."""

from pathlib import Path
from typing import Any

import pytest

from components.hosts import ssh
from components.hosts.remote import Answer


def host(alias: str, last: int, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - keys of an endpoint
    """A host as the resource has it: its numbers come back with a fraction."""
    key = f"ssh-ed25519 KEY{last}"
    address = f"10.0.0.{last}"
    given = {"alias": alias, "address": address, "port": 22.0, "user": "root", "host_key": key, "lost": False}
    return {**given, **other}


A, B, C = host("a", 1), host("b", 2), host("c", 3)


def props(*hosts: dict[str, Any], **other: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"folder": "ssh", "hosts": list(hosts), "identity": "/home/op/.ssh/id", **other}


@pytest.fixture(autouse=True)
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The destinations that do not answer."""
    silent: set[str] = set()

    def run(command: str, script: str, variables: object, seconds: float) -> Answer:
        assert command.startswith("ssh -F ssh/config ssh://")
        return Answer(255, "", "no route") if command.rsplit(maxsplit=1)[-1] in silent else Answer(0, "", "")

    monkeypatch.setattr(ssh, "PROJECT", tmp_path)
    monkeypatch.setattr(ssh, "run", run)
    return silent


def refused(olds: dict[str, Any], news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in ssh._SshAccessProvider().check(olds, news).failures]


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "ssh").iterdir()}


def test_known_hosts_keeps_hosts_that_have_left_and_the_config_does_not(tmp_path: Path) -> None:
    provider = ssh._SshAccessProvider()
    state = provider.create(props(A, B)).outs or {}
    state = provider.update("", state, props(A)).outs or {}
    state = provider.update("", state, props(A, host("b", 4))).outs or {}
    files = written(tmp_path)
    assert set(files["known_hosts"].splitlines()) == {f"10.0.0.{n} ssh-ed25519 KEY{n}" for n in (2, 4, 1)}
    assert "10.0.0.4" in files["config"]
    assert "10.0.0.2" not in files["config"]
    assert not provider.diff("", state, props(A, host("b", 4))).changes


def test_the_newest_key_of_an_address_is_the_one_that_is_pinned(tmp_path: Path) -> None:
    provider = ssh._SshAccessProvider()
    state = provider.create(props(A)).outs or {}
    provider.update("", state, props({**A, "host_key": "ssh-ed25519 NEW"}))
    assert written(tmp_path)["known_hosts"] == "10.0.0.1 ssh-ed25519 NEW\n"


@pytest.mark.parametrize(
    ("login", "files", "settings"),
    [
        (
            {"private_key": "TEXT", "identity": ""},
            {"identity"},
            'IdentityFile "{}/identity"\n  IdentitiesOnly yes',
        ),
        ({}, set(), 'IdentityFile "/home/op/.ssh/id"\n  IdentitiesOnly yes'),
        ({"identity": ""}, set(), "IdentityFile none\n  IdentitiesOnly no"),
    ],
    ids=["the lab's key", "the operator's key", "the ssh-agent"],
)
def test_only_a_key_of_the_labs_own_is_among_the_files(
    tmp_path: Path, login: dict[str, Any], files: set[str], settings: str
) -> None:
    provider = ssh._SshAccessProvider()
    state = provider.create(props(A, private_key="EARLIER", identity="")).outs or {}
    provider.update("", state, props(A, **login))
    found = written(tmp_path)
    assert set(found) == {"config", "known_hosts", *files}
    assert settings.format(tmp_path / "ssh") in found["config"]
    assert "EARLIER" not in str(found)


@pytest.mark.parametrize(
    ("news", "reason"),
    [
        ([A, B], None),
        ([A, B, C], None),
        ([A], None),
        ([A, host("b", 3)], None),
        ([A, {**B, "port": 2222.0, "user": "ops"}], None),
        ([host("a", 2), host("b", 1)], "hosts.members.a: the host at 10.0.0.2 is b of this lab"),
        ([A, host("c", 2)], "hosts.members.c: the host at 10.0.0.2 is b of this lab"),
        ([A, host("b", 3, host_key=B["host_key"])], "hosts.members.b: 10.0.0.3 has the host key of 10.0.0.2"),
    ],
    ids=["same", "joins", "leaves", "moves", "other port", "swapped", "renamed", "same machine"],
)
def test_what_removes_a_host_must_not_find_another(news: list[dict[str, Any]], reason: str | None) -> None:
    found = refused(props(A, B), props(*news))
    assert bool(found) == bool(reason)
    assert (reason or "") in "".join(found)


@pytest.mark.parametrize("news", [[A], [A, host("b", 3)]], ids=["leaves", "moves"])
def test_a_host_that_leaves_has_to_answer(
    tmp_path: Path, silent: set[str], news: list[dict[str, Any]]
) -> None:
    ssh._SshAccessProvider().create(props(A, B))
    silent.add("ssh://root@10.0.0.2:22")
    [reason] = refused(props(A, B), props(*news))
    assert "b at 10.0.0.2 leaves the lab, and what is on it cannot be removed (no route)" in reason
    assert "'lost: true'" in reason
    assert refused(props(A, {**B, "lost": True}), props(*news)) == []
    # It goes with its machine, where the lab has made that.
    assert refused(props(A, B, private_key="TEXT"), props(*news, private_key="TEXT")) == []
