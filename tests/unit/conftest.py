"""A cache, a step and a Go of the test's own."""

from pathlib import Path

import pytest

from toolchain import golang
from toolchain.golang import Go
from toolchain.progress import Step


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CALICO_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def step() -> Step:
    return Step("[1/1]", "a step")


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Go:
    monkeypatch.setattr(golang, "_version", lambda _: "go1.26.8")
    return Go(Path("/go/bin/go"), on_path=True)
