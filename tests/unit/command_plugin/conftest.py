"""The plugin as a process, and an sshd to which it logs in.

COMMAND_PLUGIN_OFFICIAL=…/pulumi-resource-command has `test_cases.py` run against an official plugin.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

SOURCE = Path(__file__).parents[3] / "toolchain" / "command-plugin"
sys.path.insert(0, str(SOURCE))

from tests.unit.command_plugin.testbed import Plugin, Sshd  # noqa: E402

if TYPE_CHECKING:
    import command_plugin.__main__  # noqa: F401 - so that mypy checks the program, which no test imports


def start() -> Plugin:
    return Plugin([sys.executable, "-m", "command_plugin"], {"PYTHONPATH": str(SOURCE)})


@pytest.fixture(scope="session")
def plugin() -> Iterator[Plugin]:
    official = os.environ.get("COMMAND_PLUGIN_OFFICIAL")
    with Plugin([official]) if official else start() as running:
        yield running


@pytest.fixture
def fresh_plugin() -> Iterator[Plugin]:
    """A plugin for one test, which may end it."""
    with start() as running:
        yield running


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running
