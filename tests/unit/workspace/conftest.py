"""A small clone with a stack; no test of the workspace uses the cache of this computer."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.progress import Step
from toolchain.pulumi import Cli
from workspace import prepare as preparation
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


@pytest.fixture(autouse=True)
def cache_of_the_test(own_cache: Path) -> Path:
    return own_cache


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the project with the files that `prepare` reads."""
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
        preparation.prepare(step, stack, Cli(program.parent, "a test's", official=False))
        return stack

    return run
