"""The program on a lab that is up: a preview tells the truth, and that is that nothing changes."""

from lab.stack import Outputs
from tests.live import here
from tests.live.program import Program


def test_nothing_changes(program: Program) -> None:
    told = program.pulumi("preview", "--expect-no-changes", "--diff", "--non-interactive")
    assert "unchanged" in told


def test_what_is_typed_without_a_stack_is_about_the_lab(outputs: Outputs) -> None:
    # As the README has it; setup has selected the stack.
    assert here.run("pulumi", "stack", "output", "notebookUrl").strip() == outputs.notebook_url
