"""The program under mocks, with a class."""

from pathlib import Path

import pytest

from tests.preview.program import config_with, run


@pytest.mark.parametrize(
    ("keep", "protected"), [(True, {"notebook-alice-work", "notebook-teacher-work"}), (False, set())]
)
def test_work_of_the_class_is_protected(keep: bool, protected: set[str], tmp_path: Path) -> None:
    roster = tmp_path / "students.csv"
    roster.write_text("name,host\nalice,a0\n")
    notebooks = {"students": str(roster), "members": {"teacher": {"host": "a1"}}, "keepWork": keep}
    program = run(config_with({"notebooks": notebooks}))
    assert {resource.name for resource in program.resources if resource.protected} == protected
