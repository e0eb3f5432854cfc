"""env.sh, sourced in the shells that a person may have."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "env.sh", tmp_path / "env.sh")
    (tmp_path / ".toolchain" / "bin").mkdir(parents=True)
    (tmp_path / ".toolchain" / "pulumi-home").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.touch()
    python.chmod(0o755)
    return tmp_path


def source(shell: str, root: Path, **environment: str) -> tuple[int, dict[str, str], str]:
    script = "set -u; . ./env.sh; . ./env.sh; env"
    done = subprocess.run(
        [shell, "-c", script],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        done.returncode,
        dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line),
        done.stderr,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_tools_come_first_on_path_once_and_pulumi_has_what_it_needs(shell: str, root: Path) -> None:
    _, environment, errors = source(shell, root)
    assert not errors
    assert environment["PATH"] == f"{root}/.venv/bin:{root}/.toolchain/bin:/usr/bin:/bin"
    assert environment["PULUMI_HOME"] == f"{root}/.toolchain/pulumi-home"
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{root}/.state/passphrase"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_persons_passphrase_and_pulumi_stay(shell: str, root: Path) -> None:
    (root / ".toolchain" / "pulumi-home").rmdir()
    _, environment, _ = source(shell, root, PULUMI_CONFIG_PASSPHRASE="")
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in environment
    assert "PULUMI_HOME" not in environment


@pytest.mark.parametrize("shell", SHELLS)
def test_before_setup_it_says_what_to_run(shell: str, root: Path) -> None:
    (root / ".toolchain").rename(root / "elsewhere")
    _, _, errors = source(shell, root)
    assert "run 'make setup' there" in errors


def test_in_bash_it_is_found_from_any_folder(root: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f". {root}/env.sh && echo $PULUMI_HOME"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{root}/.toolchain/pulumi-home"
