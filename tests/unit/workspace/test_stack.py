"""The stack: a passphrase for its owner alone, a salt that git does not see, locks of the dead released."""

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
from workspace import stack as stacks
from workspace.stack import Stack

CONFIG = "# The lab.\nconfig:\n  lab:hosts: {provider: docker}\n\n  lab:etcd: 1\n"
SALT = "v1:abc=:v1:def:ghi=="
PULUMI = """#!/bin/sh
echo "$*" >>"$ROOT/commands"
case "$1 $2" in
    "stack select") touch "$PULUMI_HOME/selected${PULUMI_BACKEND_URL:+-elsewhere}" ;;
    "stack --show-name") [ -e "$PULUMI_HOME/selected${PULUMI_BACKEND_URL:+-elsewhere}" ] || exit 1 ;;
esac
[ "$1 $2" = "stack init" ] || exit 0
folder="${PULUMI_BACKEND_URL#file://}/.pulumi/stacks/calico-lab"
mkdir -p "$folder"
echo '{"checkpoint": {"latest": {"secrets_providers": {"state": {"salt": "SALT"}}}}}' >"$folder/$3.json"
echo "encryptionsalt: SALT" >"Pulumi.$3.yaml"
""".replace("SALT", SALT)


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the project, as small as can be."""
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "clone"
    root.mkdir()
    monkeypatch.setenv("ROOT", str(root))
    (root / "Pulumi.yaml").write_text("name: calico-lab\nruntime: python\n")
    (root / "Pulumi.lab.yaml").write_text(CONFIG)
    (root / ".gitattributes").write_text("Pulumi.*.yaml filter=pulumi-salt\n")
    (root / ".gitignore").write_text(".state\n.toolchain\ncommands\n")
    (root / ".toolchain" / "pulumi-home").mkdir(parents=True)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "lab")
    return root


@pytest.fixture
def prepare(root: Path, tmp_path: Path, step: Step) -> Callable[[], Stack]:
    program = tmp_path / "pulumi" / "pulumi"
    program.parent.mkdir()
    program.write_text(PULUMI)
    program.chmod(0o755)
    stack = Stack(root, "lab")

    def run() -> Stack:
        stacks.prepare(step, stack, Cli(program.parent, "a test's", official=False))
        return stack

    return run


def test_the_passphrase_is_made_once_for_its_owner_alone(prepare: Callable[[], Stack]) -> None:
    file = prepare().state / "passphrase"
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert len(first) >= 32
    prepare()
    assert file.read_text() == first


def test_the_stack_is_made_once(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    prepare()
    made = ["stack init lab --no-select --non-interactive", "stack --show-name"]
    chosen = ["stack select lab --non-interactive", "stack --show-name"]
    assert (root / "commands").read_text().splitlines() == [*made, *chosen]


def test_the_stack_is_selected_as_it_is_when_somebody_types(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    assert [file.name for file in (root / ".toolchain" / "pulumi-home").iterdir()] == ["selected"]


def test_pulumi_finds_its_salt_and_git_sees_no_change(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    assert (root / "Pulumi.lab.yaml").read_text() == f"{CONFIG}encryptionsalt: {SALT}\n"
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "diff") == ""


def test_a_change_of_the_persons_is_seen_and_committed_without_the_salt(
    prepare: Callable[[], Stack], root: Path
) -> None:
    file = prepare().config
    file.write_text(file.read_text().replace("etcd: 1", "etcd: 3"))
    prepare()
    assert git(root, "status", "--porcelain") == " M Pulumi.lab.yaml\n"
    git(root, "commit", "--quiet", "--all", "--message", "three")
    assert git(root, "show", "HEAD:Pulumi.lab.yaml") == CONFIG.replace("etcd: 1", "etcd: 3")
    assert git(root, "status", "--porcelain") == ""


def test_a_salt_that_git_took_away_comes_back_from_the_state(
    prepare: Callable[[], Stack], root: Path
) -> None:
    prepare().config.write_text(CONFIG)
    prepare()
    assert SALT in (root / "Pulumi.lab.yaml").read_text()
    assert git(root, "status", "--porcelain") == ""


def test_the_salt_of_an_earlier_state_is_replaced(prepare: Callable[[], Stack], root: Path) -> None:
    (root / "Pulumi.lab.yaml").write_text(f"encryptionsalt: v1:old\n{CONFIG}")
    prepare()
    assert (root / "Pulumi.lab.yaml").read_text() == f"{CONFIG}encryptionsalt: {SALT}\n"


def test_without_git_the_salt_is_there_all_the_same(prepare: Callable[[], Stack], root: Path) -> None:
    (root / ".git").rename(root / "was-git")
    assert SALT in prepare().config.read_text()


def test_forgetting_leaves_the_clone_as_it_was(prepare: Callable[[], Stack], root: Path) -> None:
    before = git(root, "config", "--local", "--list")
    stacks.forget_salt(prepare())
    assert (root / "Pulumi.lab.yaml").read_text() == CONFIG
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "config", "--local", "--list") == before


@pytest.mark.parametrize(
    ("holder", "released"),
    [
        ({"pid": 2**22 + 1, "hostname": socket.gethostname()}, True),
        ({"pid": os.getpid(), "hostname": socket.gethostname()}, False),
        ({"pid": 2**22 + 1, "hostname": "another"}, False),
    ],
)
def test_only_the_lock_of_a_dead_process_of_this_machine_is_released(
    holder: dict[str, Any], released: bool, prepare: Callable[[], Stack], root: Path
) -> None:
    locks = root / ".state/.pulumi/locks/organization/calico-lab/lab"
    locks.mkdir(parents=True)
    (locks / "1.json").write_text(json.dumps(holder))
    prepare()
    assert ("cancel --yes --stack lab" in (root / "commands").read_text()) is released


def test_a_lock_of_the_own_backend_says_nothing_of_another(
    prepare: Callable[[], Stack], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = root / ".state" / ".pulumi" / "locks" / "organization" / "calico-lab" / "lab"
    locks.mkdir(parents=True)
    (locks / "a.json").write_text(json.dumps({"pid": 2**22 + 1, "hostname": socket.gethostname()}))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://somebodys-bucket")
    prepare()
    assert "cancel" not in (root / "commands").read_text()


def test_another_backend_is_used_and_no_state_is_made_here(
    prepare: Callable[[], Stack], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    stack = prepare()
    assert (root / "commands").read_text() == "stack select lab --create --non-interactive\n"
    assert stack.exported() == {}


def test_the_persons_passphrase_comes_before_the_generated_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(root, "lab")
    assert stack.environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(root / ".state" / "passphrase")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in stack.environment


def test_the_lock_of_a_process_that_ended_without_notice_is_no_lock() -> None:
    ended = subprocess.Popen(["true"])
    # Ended, and not yet waited for: a zombie.
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not stacks._lives({"hostname": socket.gethostname(), "pid": ended.pid})
    ended.wait()
    assert not stacks._lives({"hostname": socket.gethostname(), "pid": ended.pid})
    assert stacks._lives({"hostname": socket.gethostname(), "pid": os.getpid()})
    assert stacks._lives({"hostname": "another.example", "pid": ended.pid})
