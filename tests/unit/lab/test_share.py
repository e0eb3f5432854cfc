"""`lab class share`: what is packed."""

import os
import tarfile
from pathlib import Path

import pytest

from lab.share import pack
from lab.verb import NoLab


def test_pack_is_readable_by_everybody_and_nobodys(tmp_path: Path) -> None:
    folder = tmp_path / "exercises"
    folder.mkdir(mode=0o700)
    (folder / "data.csv").write_text("1\n")
    (folder / "data.csv").chmod(0o600)
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o4700)
    (folder / "latest").symlink_to("data.csv")
    os.mkfifo(folder / "pipe")
    (tmp_path / "notes.md").write_text("")
    assert pack([folder / ".." / "exercises", tmp_path / "notes.md"], tmp_path / "a.tar") == [
        "exercises",
        "notes.md",
    ]
    with tarfile.open(tmp_path / "a.tar") as tar:
        entries = sorted((one.name, oct(one.mode), one.uid, one.uname) for one in tar)
    assert entries == [
        ("exercises", "0o755", 0, ""),
        ("exercises/data.csv", "0o644", 0, ""),
        ("exercises/latest", "0o755", 0, ""),
        ("exercises/run.sh", "0o755", 0, ""),
        ("notes.md", "0o644", 0, ""),
    ]


@pytest.mark.parametrize("paths", [["/"], ["one/x", "two/x"]], ids=["no-name", "one-name-twice"])
def test_pack_refuses_names(paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(NoLab, match="each needs a name of its own"):
        pack([tmp_path / path for path in paths], tmp_path / "a.tar")
