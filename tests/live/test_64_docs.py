"""Every command that the chapters on the network and on etcd show with its output runs in the lab."""

from pathlib import Path

import pytest

from tests.live import chapters
from tests.live.chapters import CHAPTERS
from tests.live.program import Program
from workspace.outputs import PROJECT, Outputs

# That one is about a lab with another dataplane, which test_23_ebpf.py has.
HERE = [*(chapter for chapter in CHAPTERS if chapter.stem != "ebpf"), PROJECT / "docs" / "etcd.md"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chapter", HERE, ids=lambda chapter: chapter.stem)
def test_docs_commands(chapter: Path, outputs: Outputs, program: Program) -> None:
    chapters.run(chapter, program)
