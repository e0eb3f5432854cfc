"""The bench of a class: its rosters, and its figures."""

from pathlib import Path

import pytest
import yaml

from bench import classroom
from bench.classroom import ADDED, CLASS, EMPTY, PLAIN, UNCHANGED, Figures, Roster
from bench.lifecycle import BenchError
from bench.mode import file_of
from bench.project import Project
from bench.samples import Series


@pytest.fixture(autouse=True)
def _no_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "up", lambda _: 1.0)


def test_roster_grows_by_one_line(tmp_path: Path) -> None:
    roster = Roster("lab", tmp_path)
    roster.add(2)
    before = (tmp_path / "students.csv").read_text()
    assert before == "name\nstudent01\nstudent02\n"
    roster.add()
    assert (tmp_path / "students.csv").read_text() == before + "student03\n"
    config = yaml.safe_load((tmp_path / "Pulumi.lab.yaml").read_text())["config"]
    assert config["calico-lab:notebooks"]["students"] == str(tmp_path / "students.csv")
    assert config["calico-lab:proxy"] == {"host": "a2", "port": 8888, "https": "lab"}


def test_roster_of_a_lab_with_a_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "Pulumi.mine.yaml"
    document = yaml.safe_load(file_of("lab").read_text())
    document["config"]["calico-lab:notebooks"] = {"students": "students.csv"}
    file.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(classroom, "file_of", lambda _: file)
    folder = tmp_path / "copy"
    folder.mkdir()
    with pytest.raises(BenchError, match="whose saved work the bench would delete"):
        Roster("mine", folder)


def test_figures_are_relative_to_their_references() -> None:
    measured = Figures(
        hosts=3,
        made=Series("up", "s", {EMPTY: (2,), "30 notebooks": (60,)}),
        clicks=Series("click", "s", {PLAIN: (2, 4), CLASS: (3, 6)}),
        memory=Series("memory", "MiB", {PLAIN: (50,), CLASS: (55,)}),
        up=Series("up", "s", {EMPTY: (2, 2), UNCHANGED: (10, 12), ADDED: (15, 18)}),
    )
    assert measured.added_s == 5.5
    document = measured.document()
    assert document["click to kernel"]["things"][CLASS]["ratio"] == 1.5
    assert document["click to kernel"]["95th percentile"] == {PLAIN: 3.9, CLASS: 5.85}
    assert classroom.table(measured).row_count == 7
