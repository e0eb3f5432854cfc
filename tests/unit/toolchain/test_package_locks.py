"""Lock files of Python packages."""

from pathlib import Path

import pytest

from toolchain import python_env
from toolchain.progress import Step

UV = Path("/cache/uv")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The recorded commands of uv; each writes one pin into its output file."""
    recorded: list[list[str]] = []

    def run(_step: Step, _what: str, *command: object, cwd: Path = Path(), **_: object) -> None:
        recorded.append([str(part) for part in command])
        text = " ".join(recorded[-1]).replace("=", " ").split()
        (cwd / text[text.index("--output-file") + 1]).write_text("numpy==2.4.6\n")

    monkeypatch.setattr(Step, "run", run)
    return recorded


def test_lock_packages_for_the_image_and_with_the_list_in_the_first_line(
    commands: list[list[str]], step: Step, tmp_path: Path
) -> None:
    source = tmp_path / "class.in"
    source.write_text("# for the course\nscipy\nnumpy >= 2  # arrays\n")
    python_env.lock_packages(step, UV, tmp_path, source)
    assert (tmp_path / "class.lock").read_text() == "# numpy>=2 scipy\nnumpy==2.4.6\n"
    (command,) = commands
    assert {"--generate-hashes", "--no-emit-index-url", "--no-header"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.11"
    constraint = tmp_path / "images" / "notebook" / "requirements.lock"
    assert command[command.index("--constraint") + 1] == str(constraint)


def test_lock_writes_every_lock_file(commands: list[list[str]], step: Step, tmp_path: Path) -> None:
    folders = ("", "toolchain/command-plugin", "images/notebook", "images/proxy")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "images/notebook/packages.in").write_text("numpy\n")
    python_env.lock(step, UV, tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.lock")}
    expected = {f"{folder}/requirements.lock".lstrip("/") for folder in folders}
    assert written == {*expected, "images/notebook/packages.lock"}
    for command in commands:
        assert ("3.11" in command) == ("--no-header" in command)
