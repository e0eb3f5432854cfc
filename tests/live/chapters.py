"""The chapters on the network, and the commands that they show with their output."""

import re
import subprocess
from pathlib import Path

from tests.live.program import Program
from workspace.outputs import PROJECT

CHAPTERS = sorted((PROJECT / "docs" / "network").glob("*.md"))
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def commands(chapter: Path) -> list[str]:
    """The commands of a chapter, in their order: a later one may need what an earlier one has made."""
    return [line for block in _BLOCK.findall(chapter.read_text()) for line in _COMMAND.findall(block)]


def run(chapter: Path, program: Program) -> None:
    """Run each of its commands; one that fails is a failure."""
    shown = commands(chapter)
    assert shown, f"{chapter} shows nothing"
    for command in shown:
        own = command.replace(".state/ssh/lab/", f".state/ssh/{program.stack}/")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", own],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
