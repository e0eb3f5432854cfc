"""The digest of a build context changes with whatever can change the image."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.build_context import context_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    (context / "error").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    (context / "error" / "503.html").write_text("<p>")
    (context / ".hidden").write_text("x")
    (context / "link").symlink_to("Dockerfile")
    return context


def relink(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to(".hidden")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "error" / "503.html").write_text("<b>"),
    "content of a hidden file": lambda folder: (folder / ".hidden").write_text("y"),
    "name": lambda folder: (folder / ".hidden").rename(folder / ".hidden2"),
    "place": lambda folder: (folder / ".hidden").rename(folder / "error" / ".hidden"),
    "mode of a file": lambda folder: (folder / ".hidden").chmod(0o755),
    "mode of a folder": lambda folder: (folder / "error").chmod(0o700),
    "new file": lambda folder: (folder / "new").touch(),
    "new folder": lambda folder: (folder / "new").mkdir(),
    "ignore file": lambda folder: (folder / ".dockerignore").write_text("error\n"),
    "target of a link": relink,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_context_digest_changes(folder: Path, change: Callable[[Path], object]) -> None:
    before = context_digest(folder)
    change(folder)
    assert context_digest(folder) != before


def test_context_digest_of_divided_files(tmp_path: Path) -> None:
    digests = set()
    for name, split in (("one", ("ab", "c")), ("two", ("a", "bc"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(split[0])
        (tmp_path / name / "x").write_text(split[1])
        digests.add(context_digest(tmp_path / name))
    assert len(digests) == 2


def test_context_digest_of_a_copy(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy, symlinks=True)
    os.utime(copy / "Dockerfile", (0, 0))
    assert context_digest(copy) == context_digest(folder)


def test_context_without_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no Dockerfile"):
        context_digest(tmp_path)


def test_context_refuses_special_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder nor a link"):
        context_digest(folder)
