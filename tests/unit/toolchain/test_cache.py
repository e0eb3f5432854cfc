"""The cache: keys change with the inputs, artifacts are complete or absent, one process builds at a time."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from toolchain import cache


def test_key_changes_with_content_and_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "module").mkdir()
    file = tmp_path / "module" / "go.mod"
    file.write_text("one")
    first = cache.key(tmp_path / "module")
    assert cache.key(tmp_path / "module") == first
    file.write_text("two")
    assert cache.key(tmp_path / "module") != first
    file.write_text("one")
    file.rename(file.with_name("go.sum"))
    assert cache.key(tmp_path / "module") != first


def test_key_changes_with_each_input_and_their_boundaries() -> None:
    keys = [
        cache.key(*inputs) for inputs in [("a", "b"), ("ab", ""), ("b", "a"), ("a", "b", "c"), (["a"], "b")]
    ]
    assert len(set(keys)) == len(keys)


def test_key_ignores_generated_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = cache.key(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    (tmp_path / ".mypy_cache").mkdir()
    (tmp_path / ".mypy_cache" / "x").write_text("3")
    assert cache.key(tmp_path) == before


def test_artifact_is_built_once() -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        (folder / "program").write_text("x")
        built.append(folder)

    first = cache.artifact("tool", "key", build)
    assert cache.artifact("tool", "key", build) == first == cache.root() / "tool-key"
    assert (first / "program").read_text() == "x"
    assert len(built) == 1


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_artifact_of_an_interrupted_build(
    interruption: type[BaseException],
) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise interruption

    with pytest.raises(interruption):
        cache.artifact("tool", "key", broken)
    assert [file.name for file in cache.root().iterdir()] == ["tool.lock"]
    whole = cache.artifact("tool", "key", lambda folder: (folder / "whole").touch())
    assert [file.name for file in whole.iterdir()] == ["whole"]


def test_artifact_removes_scratch_folders_of_killed_builds() -> None:
    abandoned = cache.root() / ".tool-abc"
    abandoned.mkdir(parents=True)
    other = cache.root() / ".another-abc"
    other.mkdir()
    cache.artifact("tool", "key", lambda _: None)
    assert not abandoned.exists()
    assert other.exists()


def test_artifact_removes_artifacts_unused_for_a_month() -> None:
    names = {
        name: cache.root() / name for name in (f"tool-{'0' * 16}", f"tool-{'1' * 16}", f"tool-box-{'2' * 16}")
    }
    for folder in names.values():
        folder.mkdir(parents=True)
        os.utime(folder, (1, 1))
    cache.artifact("tool", "1" * 16, lambda _: None)
    assert all(folder.exists() for folder in names.values()), "nothing is removed without a build"
    cache.artifact("tool", "3" * 16, lambda _: None)
    assert {folder.name for folder in cache.root().iterdir() if folder.is_dir()} == {
        f"tool-{'1' * 16}",
        f"tool-{'3' * 16}",
        f"tool-box-{'2' * 16}",
    }


def _build_slowly(log: str) -> None:
    def build(folder: Path) -> None:
        with Path(log).open("a") as stream:
            stream.write("built\n")
        time.sleep(0.5)

    cache.artifact("tool", "key", build)


def test_artifact_is_built_by_one_of_two_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_build_slowly, args=(str(log),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert log.read_text() == "built\n"


def test_root_by_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALICO_LAB_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert cache.root() == Path("/one")
    monkeypatch.delenv("CALICO_LAB_CACHE")
    assert cache.root() == Path("/two/calico-lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.root() == Path("/three/.cache/calico-lab")
