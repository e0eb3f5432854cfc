"""The figures of the program: configs of the measured labs, the switched exercise, commands, ratios."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bench import program, project
from bench.__main__ import main
from bench.lifecycle import BenchError
from bench.program import EMPTY, LARGE, SWITCHED, UNCHANGED, Exercise, Figures
from bench.project import Project
from bench.samples import Series

# Records its arguments, its backend and the config that it is given.
PULUMI = """#!/bin/sh
echo "$* ${PULUMI_BACKEND_URL:-own}" >>"$RECORD/commands"
case "$*" in
    *--config-file*) grep enabled "${*##*--config-file }" >>"$RECORD/configs" ;;
esac
case "$1 $2 $3" in
    "preview --json"*) echo '{"changeSummary": {"create": 135, "same": 1}}' ;;
    "stack init"*) for folder; do :; done; echo "encryptionsalt: v1:salt" >"$5/Pulumi.$7.yaml" ;;
esac
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the records of a Pulumi that does nothing."""
    pulumi = tmp_path / "bin" / "pulumi"
    pulumi.parent.mkdir()
    pulumi.write_text(PULUMI)
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pulumi.parent}:/usr/bin:/bin")
    monkeypatch.setenv("RECORD", str(tmp_path))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    return tmp_path


def commands(record: Path) -> list[str]:
    return (record / "commands").read_text().splitlines()


def stack_file(folder: Path, policies: dict[str, Any]) -> Path:
    file = folder / "Pulumi.lab.yaml"
    file.write_text(yaml.safe_dump({"config": {"calico-lab:firewall": {"policies": policies}}}))
    return file


def test_with_hosts_adds_hosts_with_addresses_of_their_own() -> None:
    config = program.original()
    members = program.with_hosts(config, 30)["calico-lab:hosts"]["members"]
    addresses = [member["address"] for member in members.values()]
    assert len(set(addresses)) == len(members) == 30
    assert members["a3"] == {"address": "172.16.6.103"}
    assert len(config["calico-lab:hosts"]["members"]) == 3, "the original config is not changed"


@pytest.mark.parametrize("configured", [False, True])
def test_exercise_is_switched_and_left_as_configured(record: Path, *, configured: bool) -> None:
    file = stack_file(record, {"reject-ping": {"enabled": configured}})
    with program.exercise(Project(record, "lab"), file) as exercise:
        exercise.up()
        exercise.switch()
        exercise.up()
    own, other = (str(value).lower() for value in (configured, not configured))
    configs = [line.split()[-1] for line in (record / "configs").read_text().splitlines()]
    assert configs == [own, other, other, own]
    assert all(command.startswith("up --yes --skip-preview --stack lab") for command in commands(record))


def test_exercise_that_is_missing_is_an_error(tmp_path: Path) -> None:
    missing = program.exercise(Project(tmp_path, "lab"), stack_file(tmp_path, {}))
    with pytest.raises(BenchError, match="no policy reject-ping"), missing:
        pass


def test_project_empty_has_a_backend_of_its_own(record: Path) -> None:
    with project.empty() as empty:
        assert (empty.folder / "__main__.py").read_text() == ""
        empty.preview()
    assert not empty.folder.exists()
    assert [line.partition(" --stack empty")[0] for line in commands(record)] == [
        f"stack init --no-select --cwd {empty.folder}",
        "up --yes --skip-preview",
        "preview",
    ]
    assert all(line.endswith(f"file://{empty.folder}/state") for line in commands(record))


def test_project_from_nothing_counts_resources(record: Path) -> None:
    with project.from_nothing({"calico-lab:hosts": {}}) as lab:
        assert lab.config
        assert yaml.safe_load(lab.config.read_text()) == {
            "encryptionsalt": "v1:salt",
            "config": {"calico-lab:hosts": {}},
        }
        assert lab.creates() == 135
    assert "--config-file" in commands(record)[-1]


def test_project_that_fails_is_an_error(record: Path) -> None:
    (record / "bin" / "pulumi").write_text("#!/bin/sh\necho 'error: no stack' >&2; exit 255\n")
    with pytest.raises(BenchError, match=r"pulumi preview --stack lab .*:\nerror: no stack"):
        Project(record, "lab").preview()


def test_figures_document() -> None:
    figures = Figures(
        Series("preview", "s", {EMPTY: (1.0, 2.0), UNCHANGED: (2.5, 5.0)}),
        Series("up", "s", {EMPTY: (2.0, 2.0), UNCHANGED: (4.0, 5.0), SWITCHED: (5.0, 7.0)}),
        Series("preview", "s", {EMPTY: (1.0,), LARGE: (6.0,)}),
        resources=75,
        resources_with_one_more_host=85,
    )
    document = figures.document()
    assert document["preview"]["things"][UNCHANGED]["ratio"] == 2.5
    assert document["exercise beyond an up without a change, s"] == 1.5
    assert document["preview from nothing"]["things"][LARGE]["ratio"] == 6
    assert (document["resources"], document["resources of a further host"]) == (75, 10)
    times, counts = program.tables_of(figures)
    assert (times.row_count, counts.row_count) == (5, 2)


def test_exercise_switch_alternates(record: Path) -> None:
    files = {enabled: stack_file(record, {"reject-ping": {"enabled": enabled}}) for enabled in (True, False)}
    exercise = Exercise(Project(record, "lab"), files, enabled=False)
    exercise.switch()
    assert exercise.enabled
    exercise.switch()
    assert not exercise.enabled


def test_measure_alternates_and_restores_the_config(record: Path) -> None:
    figures = program.measure("lab")
    assert {len(samples) for samples in figures.up.samples.values()} == {program.ROUNDS}
    previews = [
        line.partition("--stack ")[2].split()[0] for line in commands(record) if line.startswith("preview ")
    ]
    assert previews[:4] == ["empty", "lab", "lab", "empty"]
    ups = [line for line in commands(record) if line.startswith("up ") and "--stack lab" in line]
    # Each round has an `up` without a change and a switch; the last `up` switches back.
    assert len(ups) == 2 * program.ROUNDS + 1


def test_main_only_program_prints_json(record: Path) -> None:
    done = CliRunner().invoke(main, ["--only", "program", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["program"]["resources"] == 135
    assert set(document["program"]["up"]["things"]) == {EMPTY, UNCHANGED, SWITCHED}
    assert record.joinpath("commands").exists()
