"""The checkout that the tests run in."""

import subprocess
from collections.abc import Iterator

import pytest

from workspace.outputs import PROJECT


def git_status() -> str:
    """What `git status` prints, for scripts."""
    command = ["git", "status", "--porcelain"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def git_status_stays() -> Iterator[None]:
    """Fail where the tests, which do what an operator does, change what git sees of the checkout."""
    before = git_status()
    yield
    assert git_status() == before
