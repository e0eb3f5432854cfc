"""The stand-in `command` plugin as a process, and a real sshd for it to log in to."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "toolchain" / "command-plugin"
sys.path.insert(0, str(SOURCE))

from testbed import Plugin, Sshd  # noqa: E402


def start() -> Plugin:
    return Plugin([sys.executable, "-m", "command_plugin"], {"PYTHONPATH": str(SOURCE)})


@pytest.fixture(scope="session")
def plugin() -> Iterator[Plugin]:
    os.environ.pop("SSH_AUTH_SOCK", None)
    with start() as running:
        yield running


@pytest.fixture
def fresh_plugin() -> Iterator[Plugin]:
    """A plugin of the test's own, to be ended by it."""
    with start() as running:
        yield running


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running
