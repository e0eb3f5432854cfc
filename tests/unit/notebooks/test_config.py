"""The sections of notebooks: members, the roster, and what each notebook comes to."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.notebooks.config import NotebookConfig, NotebooksConfig, notebooks

ORIGINAL = NotebookConfig.model_validate({"address": "192.168.0.100"})


def section(folder: Path, roster: str | None = None, **values: Any) -> NotebooksConfig:  # noqa: ANN401 - JSON
    if roster is not None:
        path = folder / "students.csv"
        path.write_bytes(roster.encode("utf-8-sig"))
        values["students"] = str(path)
    return NotebooksConfig.model_validate(values)


def test_notebooks_without_a_class_are_the_original_one() -> None:
    [notebook] = notebooks(ORIGINAL, NotebooksConfig.model_validate({})).values()
    assert (notebook.name, notebook.container, notebook.service) == (
        "notebook",
        "calico-lab-notebook",
        "notebook",
    )
    assert (notebook.path, notebook.host, notebook.address) == ("/", "a1", "192.168.0.100")
    assert not notebook.student


def test_notebooks_of_a_class_take_limits_from_the_section(tmp_path: Path) -> None:
    roster = "name, memory, host, enabled\n\nalice,,,\nbob, 2048, a2, false\n"
    made = notebooks(
        ORIGINAL, section(tmp_path, roster, members={"teacher": {"cpus": 2}}, memory=512, cpus=0.5)
    )
    assert list(made) == ["notebook", "teacher", "alice", "bob"]
    assert [(one.memory, one.cpus, one.student) for one in made.values()] == [
        (1024, 1.0, False),
        (512, 2.0, False),
        (512, 0.5, True),
        (2048, 0.5, True),
    ]
    alice, bob = made["alice"], made["bob"]
    assert (alice.container, alice.path, alice.host) == ("calico-lab-notebook-alice", "/alice/", None)
    assert (bob.host, bob.enabled, bob.section) == ("a2", False, "notebooks.students.bob")


@pytest.mark.parametrize(
    ("roster", "message"),
    [
        ("", "has no column 'name'"),
        ("student\nalice\n", "has no column 'name'"),
        ("name\nalice,x\n", "line 2: has more fields than the first line has columns"),
        ("name\nAlice\n", "line 2, name: must be a host name"),
        ("name\nlab\n", "line 2, name: is a path of Jupyter's own"),
        ("name\nnotebook\n", "line 2, name: is a path of Jupyter's own"),
        ("name\nalice\nalice\n", "line 3, name: 'alice' is taken"),
        ("name\nteacher\n", "line 2, name: 'teacher' is taken"),
        ("name,memory\nalice,16\n", "line 2, memory: Input should be greater than or equal to 256"),
        ("name,colour\nalice,red\n", "line 2, colour: Extra inputs are not permitted"),
        ("name,restore\nalice,yesterday\n", "line 2, restore: String should match pattern"),
        ("name,password\nalice,secret\n", "line 2, password: String should match pattern"),
    ],
)
def test_roster_refused(tmp_path: Path, roster: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        section(tmp_path, roster, members={"teacher": {}})
    assert message in str(refused.value)


def test_roster_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"cannot be read .No such file or directory."):
        NotebooksConfig.model_validate({"students": str(tmp_path / "none.csv")})
    (tmp_path / "latin.csv").write_bytes("name\nü\n".encode("latin-1"))
    with pytest.raises(ValidationError, match="is not UTF-8"):
        NotebooksConfig.model_validate({"students": str(tmp_path / "latin.csv")})
