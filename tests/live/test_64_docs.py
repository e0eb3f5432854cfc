"""Every command that the chapters on the network show with its output runs in the lab as it stands there."""

from pathlib import Path

import pytest

from lab.stack import Outputs
from tests.live import chapters
from tests.live.chapters import CHAPTERS
from tests.live.program import Program


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_commands_run(chapter: Path, outputs: Outputs, program: Program) -> None:
    chapters.run(chapter, program)
