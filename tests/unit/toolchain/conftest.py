"""No test of the toolchain uses the cache of this computer."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_of_the_test(own_cache: Path) -> Path:
    return own_cache
