"""The salt: in the stack's file for Pulumi, and hidden from git."""

from collections.abc import Callable
from pathlib import Path

from tests.unit.workspace.conftest import CONFIG, SALT, git
from workspace import salt
from workspace.stack import Stack


def test_salt_is_in_the_file_and_hidden_from_git(prepare: Callable[[], Stack], root: Path) -> None:
    prepare()
    assert (root / "Pulumi.lab.yaml").read_text() == f"{CONFIG}encryptionsalt: {SALT}\n"
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "diff") == ""


def test_salt_is_not_committed_with_a_change_of_the_operator(
    prepare: Callable[[], Stack], root: Path
) -> None:
    file = prepare().config
    file.write_text(file.read_text().replace("etcd: 1", "etcd: 3"))
    prepare()
    assert git(root, "status", "--porcelain") == " M Pulumi.lab.yaml\n"
    git(root, "commit", "--quiet", "--all", "--message", "three")
    assert git(root, "show", "HEAD:Pulumi.lab.yaml") == CONFIG.replace("etcd: 1", "etcd: 3")
    assert git(root, "status", "--porcelain") == ""


def test_salt_that_git_has_removed_is_taken_from_the_state(prepare: Callable[[], Stack], root: Path) -> None:
    prepare().config.write_text(CONFIG)
    prepare()
    assert SALT in (root / "Pulumi.lab.yaml").read_text()
    assert git(root, "status", "--porcelain") == ""


def test_salt_of_another_state_is_replaced(prepare: Callable[[], Stack], root: Path) -> None:
    (root / "Pulumi.lab.yaml").write_text(f"encryptionsalt: v1:old\n{CONFIG}")
    prepare()
    assert (root / "Pulumi.lab.yaml").read_text() == f"{CONFIG}encryptionsalt: {SALT}\n"


def test_salt_without_git(prepare: Callable[[], Stack], root: Path) -> None:
    (root / ".git").rename(root / "was-git")
    assert SALT in prepare().config.read_text()


def test_forget_restores_the_clone(prepare: Callable[[], Stack], root: Path) -> None:
    before = git(root, "config", "--local", "--list")
    salt.forget(prepare())
    assert (root / "Pulumi.lab.yaml").read_text() == CONFIG
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "config", "--local", "--list") == before
