"""The live tests need a running lab: `pulumi up --stack lab` comes before them.

The modules run in the order of their names: tests that only read come first, tests that change the lab and
restore it later, and `pulumi destroy` last.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.guests import Guest, guests
from tests.checkout import git_status_stays
from tests.live.program import Program
from workspace import outputs as stack
from workspace.outputs import Outputs

__all__ = ["git_status_stays"]
TEST_SECONDS = 120
"""The time limit of a test that has none of its own, as one that runs `pulumi up` has."""
SLOWER = 3
"""The limits end what hangs. Another machine is slower, and in `make test` others run beside these tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound every test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            own = item.get_closest_marker("timeout")
            seconds = own.args[0] if own else TEST_SECONDS
            item.add_marker(pytest.mark.timeout(SLOWER * seconds), append=False)


@pytest.fixture(scope="session")
def program() -> Program:
    """The Pulumi program and its stack."""
    return Program(os.environ.get("CALICO_LAB_STACK", "lab"))


@pytest.fixture(scope="session")
def outputs(program: Program) -> Outputs:
    """The outputs of the running lab; without a lab the session fails."""
    try:
        return stack.read(program.stack)
    except stack.StackError as error:
        pytest.exit(f"the live tests need a running lab: {error}", returncode=3)


@pytest.fixture(scope="session")
def token(program: Program) -> str:
    """The notebook's token."""
    return program.secret_output("notebookToken")


@pytest.fixture(scope="module")
def guest(outputs: Outputs) -> Iterator[dict[str, Guest]]:
    """A container on the lab's network on each host, by host."""
    with guests(outputs, list(outputs.hosts)) as running:
        yield running
