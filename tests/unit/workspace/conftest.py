"""No test of the workspace uses the cache of the machine."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_of_the_test(own_cache: Path) -> Path:
    return own_cache
