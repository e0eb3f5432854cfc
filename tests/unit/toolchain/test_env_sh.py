"""env.sh, sourced in bash, dash and zsh."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]


def checkout(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    shutil.copy(ROOT / "env.sh", root / "env.sh")
    (root / ".toolchain" / "bin").mkdir(parents=True)
    (root / ".toolchain" / "pulumi-home").mkdir()
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.touch()
    python.chmod(0o755)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return checkout(tmp_path / "lab")


def source(
    shell: str, root: Path, script: str = "set -u; . ./env.sh; . ./env.sh; env", **environment: str
) -> tuple[int, dict[str, str], str]:
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
def test_env_sh_sets_path_once_and_pulumi_variables(shell: str, root: Path) -> None:
    _, environment, errors = source(shell, root)
    assert not errors
    assert environment["PATH"] == f"{root}/.venv/bin:{root}/.toolchain/bin:/usr/bin:/bin"
    assert environment["PULUMI_HOME"] == f"{root}/.toolchain/pulumi-home"
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{root}/.state/passphrase"


@pytest.mark.parametrize("shell", SHELLS)
def test_env_sh_keeps_the_operators_passphrase_and_pulumi(shell: str, root: Path) -> None:
    (root / ".toolchain" / "pulumi-home").rmdir()
    _, environment, _ = source(shell, root, PULUMI_CONFIG_PASSPHRASE="")
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in environment
    assert "PULUMI_HOME" not in environment


@pytest.mark.parametrize("shell", SHELLS)
def test_env_sh_of_two_checkouts_in_one_shell(shell: str, root: Path) -> None:
    other = checkout(root.parent / "other")
    (other / ".toolchain" / "pulumi-home").rmdir()
    there = f"set -u; . ./env.sh; cd {other}; . ./env.sh"
    _, environment, _ = source(shell, root, f"{there}; env")
    assert environment["PATH"].startswith(f"{other}/.venv/bin:{other}/.toolchain/bin:{root}/")
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{other}/.state/passphrase"
    assert "PULUMI_HOME" not in environment
    _, environment, _ = source(shell, root, f"{there}; cd {root}; . ./env.sh; env")
    assert environment["PATH"].startswith(f"{root}/.venv/bin:{root}/.toolchain/bin:{other}/")
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{root}/.state/passphrase"
    assert environment["PULUMI_HOME"] == f"{root}/.toolchain/pulumi-home"


@pytest.mark.parametrize("shell", SHELLS)
def test_env_sh_before_setup(shell: str, root: Path) -> None:
    (root / ".toolchain").rename(root / "elsewhere")
    _, _, errors = source(shell, root)
    assert "run 'make setup' there" in errors


def test_env_sh_in_bash_from_another_folder(root: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f". {root}/env.sh && echo $PULUMI_HOME"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{root}/.toolchain/pulumi-home"
