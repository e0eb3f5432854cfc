"""The notebook image, and one running container of it."""

from collections.abc import Iterator

import pytest

from tests.unit.images import notebooks
from tests.unit.images.notebooks import Notebook


@pytest.fixture(scope="session")
def image() -> str:
    return notebooks.build()


@pytest.fixture(scope="module")
def notebook(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook as in a lab whose program gives it no variables."""
    with notebooks.container(image, tmp_path_factory.mktemp("secrets")) as running:
        running.await_start()
        yield running
