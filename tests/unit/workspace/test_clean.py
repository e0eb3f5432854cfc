"""`clean` destroys the lab first, and removes no state that is still needed."""

import json
from pathlib import Path

import pytest

from toolchain import engine
from toolchain.errors import ToolchainError
from workspace import clean as cleaning
from workspace.stack import Stack

ELSEWHERE = "s3://somebodys-bucket"
PULUMI = """pulumi() {
    echo "$*" >>commands
    case "$1 $2" in
    "stack export")
        [ -e remote.json ] || { echo "error: no stack named 'lab' found" >&2; return 255; }
        cat remote.json ;;
    esac
}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a lab that is up; its Pulumi records its commands."""
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr(engine, "runs", lambda: False)
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "Pulumi.yaml").write_text("name: calico-lab\n")
    (root / "env.sh").write_text(PULUMI)
    (root / ".toolchain").mkdir()
    write(root, "lab", up=True)
    (root / ".state" / "passphrase").touch()
    return root


def write(root: Path, stack: str, *, up: bool) -> None:
    """Write a stack's state into the checkout's own backend."""
    file = root / ".state" / ".pulumi" / "stacks" / "calico-lab" / f"{stack}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    resources = [{"urn": "urn:pulumi:lab::calico-lab::x::hosts"}] if up else []
    file.write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))


def clean(root: Path) -> None:
    cleaning.clean(Stack(root, "lab"), with_cache=False)


def commands(root: Path) -> list[str]:
    file = root / "commands"
    return [line.partition(" --")[0] for line in file.read_text().splitlines()] if file.exists() else []


def test_clean_destroys_the_lab_and_removes_what_setup_made(checkout: Path) -> None:
    write(checkout, "empty", up=False)
    clean(checkout)
    assert commands(checkout) == ["destroy"]
    assert not (checkout / ".state").exists()
    assert not (checkout / ".toolchain").exists()


def test_clean_with_another_stack_that_is_up_does_nothing(checkout: Path) -> None:
    write(checkout, "vms", up=True)
    with pytest.raises(ToolchainError, match=r"vms.*pulumi destroy --stack vms"):
        clean(checkout)
    assert commands(checkout) == []
    assert (checkout / ".state" / "passphrase").exists()


def test_clean_with_another_backend_keeps_the_passphrase(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkout, "lab", up=False)
    monkeypatch.setenv("PULUMI_BACKEND_URL", ELSEWHERE)
    (checkout / "remote.json").write_text('{"deployment": {"resources": [{"urn": "x"}]}}')
    clean(checkout)
    assert commands(checkout) == ["stack export", "destroy"]
    assert (checkout / ".state" / "passphrase").exists()
    assert not (checkout / ".toolchain").exists()


def test_clean_without_the_stack_in_the_other_backend_destroys_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkout, "lab", up=False)
    monkeypatch.setenv("PULUMI_BACKEND_URL", ELSEWHERE)
    clean(checkout)
    assert commands(checkout) == ["stack export"]
    assert (checkout / ".state" / "passphrase").exists()


def test_clean_with_a_backend_that_does_not_answer_does_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkout, "lab", up=False)
    monkeypatch.setenv("PULUMI_BACKEND_URL", ELSEWHERE)
    (checkout / "env.sh").write_text("pulumi() { echo 'error: access denied' >&2; return 1; }\n")
    with pytest.raises(ToolchainError, match="access denied"):
        clean(checkout)
    assert (checkout / ".toolchain").exists()


def test_clean_with_another_backend_checks_the_own_one(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", ELSEWHERE)
    with pytest.raises(ToolchainError, match="lab"):
        clean(checkout)
    assert commands(checkout) == []
