"""Proxies and notebooks for the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.proxy.notebooks import Loop, Start, started
from tests.unit.proxy.running import Proxy, build


@pytest.fixture(scope="session")
def image() -> str:
    return build()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop.running() as loop:
        yield loop


@pytest.fixture
def start(loop: Loop) -> Iterator[Start]:
    with started(loop) as start:
        yield start


@pytest.fixture(scope="module")
def proxy(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy without HTTPS; each test gives it its routes."""
    folder = tmp_path_factory.mktemp("proxy")
    made = Proxy(folder, image, metrics=True)
    made.routes([])
    with made.started():
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
