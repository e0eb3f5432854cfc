"""A cache, a step and a Go of the test's own; and nothing of one test that another meets."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain import golang
from toolchain.errors import STOP
from toolchain.golang import Go
from toolchain.progress import Step


@pytest.fixture(autouse=True)
def traceback_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what an error of a provider sets for the whole process.

    Pulumi's SDK reads the stack of its caller by the same limit. With 0 its mocks fail, or wait for ever.
    """
    monkeypatch.setattr("sys.tracebacklimit", 1000, raising=False)


@pytest.fixture(autouse=True)
def not_stopped() -> Iterator[None]:
    """Undo a stop, which is for all steps of the process."""
    yield
    STOP.clear()


@pytest.fixture
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of the test's own. After asyncio.run() Pulumi's SDK has none in this process."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


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
