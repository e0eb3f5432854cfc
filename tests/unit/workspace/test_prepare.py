"""Preparing a stack: passphrase, creation and selection, locks of killed runs."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.progress import Step
from toolchain.pulumi import Cli
from workspace import leftovers
from workspace import prepare as preparation
from workspace.stack import Stack


def test_passphrase_is_made_once_for_its_owner_alone(prepare: Callable[[], Stack]) -> None:
    file = prepare().state / "passphrase"
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert len(first) >= 32
    prepare()
    assert file.read_text() == first


def test_prepare_twice_creates_the_stack_once(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    prepare()
    made = ["stack init lab --no-select --non-interactive", "stack --show-name"]
    chosen = ["stack select lab --non-interactive", "stack --show-name"]
    assert (root / "commands").read_text().splitlines() == [*made, *chosen]


def test_prepare_selects_the_stack_for_typed_commands(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    assert [file.name for file in (root / ".toolchain" / "pulumi-home").iterdir()] == ["selected"]


@pytest.mark.parametrize(
    ("holder", "released"),
    [
        ({"pid": 2**22 + 1, "hostname": socket.gethostname()}, True),
        ({"pid": os.getpid(), "hostname": socket.gethostname()}, False),
        ({"pid": 2**22 + 1, "hostname": "another"}, False),
    ],
)
def test_release_lock_of_a_dead_process_on_this_computer_only(
    holder: dict[str, Any], released: bool, prepare: Callable[[], Stack], root: Path
) -> None:
    locks = root / ".state/.pulumi/locks/organization/calico-lab/lab"
    locks.mkdir(parents=True)
    (locks / "1.json").write_text(json.dumps(holder))
    prepare()
    assert ("cancel --yes --stack lab" in (root / "commands").read_text()) is released


def test_release_lock_with_another_backend(
    prepare: Callable[[], Stack], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = root / ".state" / ".pulumi" / "locks" / "organization" / "calico-lab" / "lab"
    locks.mkdir(parents=True)
    (locks / "a.json").write_text(json.dumps({"pid": 2**22 + 1, "hostname": socket.gethostname()}))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://somebodys-bucket")
    prepare()
    assert "cancel" not in (root / "commands").read_text()


def test_prepare_with_another_backend(
    prepare: Callable[[], Stack], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    stack = prepare()
    assert (root / "commands").read_text() == "stack select lab --create --non-interactive\n"
    assert stack.exported() == {}


def test_environment_prefers_the_operators_passphrase(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(root, "lab")
    assert stack.environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(root / ".state" / "passphrase")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in stack.environment


def test_environment_ignores_the_passphrase_of_another_checkout(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALICO_LAB_ROOT", "/other")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "/other/.state/passphrase")
    passphrase = str(root / ".state" / "passphrase")
    assert Stack(root, "lab").environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == passphrase
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "/mine")
    assert Stack(root, "lab").environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == "/mine"


def test_is_alive_of_a_zombie() -> None:
    ended = subprocess.Popen(["true"])
    # It has ended, and nobody has waited for it.
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not preparation._is_alive({"hostname": socket.gethostname(), "pid": ended.pid})
    ended.wait()
    assert not preparation._is_alive({"hostname": socket.gethostname(), "pid": ended.pid})
    assert preparation._is_alive({"hostname": socket.gethostname(), "pid": os.getpid()})
    assert preparation._is_alive({"hostname": "another.example", "pid": ended.pid})


@pytest.mark.parametrize("gone", [[], ["calico-lab-a0"]])
def test_notice_gone_refreshes_what_is_on_the_controller(
    gone: list[str],
    prepare: Callable[[], Stack],
    root: Path,
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = prepare()
    monkeypatch.setattr(leftovers, "gone", lambda _: gone)
    monkeypatch.setattr(leftovers, "on_controller", lambda _: [{"urn": "urn:a0"}, {"urn": "urn:network"}])
    preparation.notice_gone(step, stack, Cli(root.parent / "pulumi", "a test's", official=False))
    ran = [line for line in (root / "commands").read_text().splitlines() if line.startswith("refresh")]
    options = "--yes --skip-preview --non-interactive --stack lab --target urn:a0 --target urn:network"
    assert ran == ([f"refresh {options}"] if gone else [])
