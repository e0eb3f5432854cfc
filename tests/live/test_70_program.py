"""The program on a lab that is up: a preview tells the truth, and that is that nothing changes."""

from tests.live.program import Program


def test_nothing_changes(program: Program) -> None:
    told = program.pulumi("preview", "--expect-no-changes", "--diff", "--non-interactive")
    assert "unchanged" in told
