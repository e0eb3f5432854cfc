"""The saved work of a notebook: what happens to it when the notebook moves or goes back to a backup."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from components.backup.rendering import RESTORE
from components.hosts.remote import Answer, HostError
from components.notebooks import step, work
from components.notebooks.work import _WorkProvider

HERE: dict[str, Any] = {
    **{"host": "a0", "location": "a0", "ssh": "ssh a0", "lost": [], "token": "secret"},
    **{"container": "calico-lab-notebook-x", "volume": "x-work", "notebook": "x", "stack": "lab"},
    **{"restore": None, "repositories": None},
}
THERE = {**HERE, "host": "a1", "location": "a1", "ssh": "ssh a1"}
BACKUPS = {"repositories": {"a0": {"url": "rest:https://a2"}}}
RESTORED = json.dumps({"time": "2026-11-28T10:00:00Z", "source": "a0", "files": 3})
SILENT = Answer(255, "", "timed out")
Ran = list[tuple[str, str]]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Hosts that answer as told; what ran there, as pairs of the ssh command and the script's name."""

    def prepare(*, problem: str = "", **answers: Answer) -> Ran:
        ran: Ran = []
        names = {path.read_text(): path.stem for path in step.SCRIPTS.glob("*.sh")}
        names[RESTORE.read_text()] = "restore"

        def run(ssh: str, script: str, variables: dict[str, str], *_: object, **__: object) -> Answer:
            name = names[script]
            ran.append((ssh, f"{name} {variables['RESTORED']}" if name == "put-back" else name))
            usual = Answer(0, "running\n" if name == "stop" else "digest", "")
            return answers.get(f"{ssh[4:]}_{name}".replace("-", "_"), usual)

        def transfer(source: tuple[str, str], target: tuple[str, str], *_: object) -> str:
            ran.append((source[0], names[source[1]]))
            ran.append((target[0], names[target[1]]))
            return problem

        names[":"] = "reach"
        monkeypatch.setattr(step, "run", run)
        monkeypatch.setattr(work, "run", lambda ssh, script, seconds: run(ssh, script, {}, seconds))
        monkeypatch.setattr(work, "PAUSE_SECONDS", 0)
        monkeypatch.setattr(work, "transfer", transfer)
        return ran

    return prepare


def update(olds: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    outs = _WorkProvider().update("id", olds, news).outs
    assert outs is not None
    assert outs["token"] == "secret"
    return dict(outs)


def test_work_moves_with_the_notebook(hosts: Callable[..., Ran]) -> None:
    ran = hosts()
    update(HERE, THERE)
    assert ran == [
        ("ssh a0", "stop"),
        ("ssh a1", "create-data"),
        ("ssh a0", "export"),
        ("ssh a1", "import"),
        ("ssh a0", "digest"),
        ("ssh a1", "digest"),
    ]


def test_work_stays_when_its_host_is_reached_another_way(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_restore=Answer(0, RESTORED, ""))
    update({**HERE, "ssh": "ssh a9"}, {**HERE, **BACKUPS, "restore": "latest"})
    assert [name for _, name in ran] == ["create-data", "stop", "set-aside", "restore", "put-back yes"]


def test_work_that_moves_and_goes_back_to_a_backup(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a1_restore=Answer(0, RESTORED, ""))
    assert update(HERE, {**THERE, **BACKUPS, "restore": "latest"})["left_behind"] == ""
    assert ("ssh a1", "import") in ran
    assert ran[-1] == ("ssh a1", "put-back yes")


def test_work_that_moves_runs_again_where_it_was_if_it_cannot_be_restored(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a1_restore=Answer(3, "", "there is no snapshot"))
    with pytest.raises(HostError, match=r"there is no snapshot.* It runs on a0 again"):
        update(HERE, {**THERE, **BACKUPS, "restore": "latest"})
    assert ran[-2:] == [("ssh a1", "remove-data"), ("ssh a0", "resume")]


def test_work_that_was_left_behind_is_kept_when_the_notebook_comes_back(
    hosts: Callable[..., Ran], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = hosts(a1_keep_data=Answer(0, "/var/lib/calico-lab-left/x\n", ""))
    assert update({**HERE, "left_behind": "a1"}, THERE)["left_behind"] == ""
    assert ran[:3] == [("ssh a1", "remove"), ("ssh a1", "keep-data"), ("ssh a0", "stop")]
    assert "had left there is kept in /var/lib/calico-lab-left/x" in capfd.readouterr().err


def test_work_that_was_left_behind_is_remembered_in_further_moves(hosts: Callable[..., Ran]) -> None:
    hosts()
    further = {**HERE, "host": "a2", "location": "a2", "ssh": "ssh a2"}
    assert update({**HERE, "left_behind": "a1"}, further)["left_behind"] == "a1"


@pytest.mark.parametrize(
    ("problem", "answers", "message"),
    [
        ("the disk is full", {}, "from a0 to a1: the disk is full. It runs on a0 again"),
        ("", {"a1_digest": Answer(0, "another", "")}, "the copy differs from the original"),
    ],
)
def test_work_that_cannot_be_copied_stays(
    hosts: Callable[..., Ran], problem: str, answers: dict[str, Answer], message: str
) -> None:
    ran = hosts(problem=problem, **answers)
    with pytest.raises(HostError, match=message):
        update(HERE, THERE)
    assert ran[-2:] == [("ssh a1", "remove-data"), ("ssh a0", "resume")]


@pytest.mark.parametrize("name", ["a1_create_data", "a0_digest"])
def test_work_is_used_again_after_a_step_of_the_move_failed(hosts: Callable[..., Ran], name: str) -> None:
    ran = hosts(**{name: Answer(1, "", "no space left on device")})
    with pytest.raises(HostError, match=r"could not be copied from a0 to a1: .*no space left"):
        update(HERE, THERE)
    assert ran[-1] == ("ssh a0", "resume")


def test_work_is_not_restored_after_one_connection_that_failed(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_stop=Answer(255, "", "connection reset"))
    with pytest.raises(HostError, match="cannot be stopped: connection reset; run 'pulumi up' again"):
        update(HERE, {**THERE, **BACKUPS})
    assert ran == [("ssh a0", "stop"), ("ssh a0", "reach")]


def test_work_on_a_host_that_does_not_answer_is_not_given_up(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_stop=SILENT, a0_reach=SILENT)
    with pytest.raises(HostError, match=r"which does not answer \(timed out\), .* 'restore: empty'"):
        update(HERE, THERE)
    assert ran == [("ssh a0", "stop"), *[("ssh a0", "reach")] * work.TRIES]


@pytest.mark.parametrize("gone", [{}, {"lost": ["a0"]}], ids=["does-not-answer", "lost"])
def test_work_of_a_gone_host_comes_from_the_last_backup(
    hosts: Callable[..., Ran], gone: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = hosts(a0_stop=SILENT, a0_reach=SILENT, a1_restore=Answer(0, RESTORED, ""))
    news = {**THERE, **BACKUPS, **gone, "restore": "empty"}
    # A value that was applied before counts no more.
    assert update({**HERE, "restore": "empty"}, news)["left_behind"] == "a0"
    assert ran[-4:] == [
        ("ssh a1", "stop"),
        ("ssh a1", "set-aside"),
        ("ssh a1", "restore"),
        ("ssh a1", "put-back yes"),
    ]
    assert "has the work of 2026-11-28T10:00:00Z, from the backups of a0: 3 files" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("olds", "news"), [({}, {"lost": ["a0"]}), ({"lost": ["a0"]}, {}), ({}, {"restore": "empty"})]
)
def test_work_is_given_up_by_an_explicit_word(
    hosts: Callable[..., Ran], olds: dict[str, Any], news: dict[str, Any]
) -> None:
    ran = hosts(a0_stop=SILENT, a0_reach=SILENT)
    update({**HERE, **olds}, {**THERE, **news})
    assert ran[-1] == ("ssh a1", "create-data")


def test_work_is_as_it_was_after_a_restore_that_failed(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_restore=Answer(3, "", "there is no snapshot"))
    with pytest.raises(HostError, match=r"there is no snapshot\. What was saved is as it was"):
        update(HERE, {**HERE, **BACKUPS, "restore": "latest"})
    assert ran[-3:] == [("ssh a0", "restore"), ("ssh a0", "put-back no"), ("ssh a0", "resume")]


def test_work_of_a_notebook_that_is_off_is_restored_without_starting_it(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_stop=Answer(0, "exited\n", ""), a0_restore=Answer(3, "", "there is no snapshot"))
    with pytest.raises(HostError, match="there is no snapshot"):
        update(HERE, {**HERE, **BACKUPS, "restore": "latest"})
    assert ran[-1] == ("ssh a0", "put-back no")


def test_work_is_restored_once_for_each_value(hosts: Callable[..., Ran]) -> None:
    ran = hosts(a0_restore=Answer(0, RESTORED, ""))
    restored = {**HERE, **BACKUPS, "restore": "latest"}
    update(restored, restored)
    assert ran == []
    assert not _WorkProvider().diff("id", restored, restored).changes
    assert _WorkProvider().diff("id", restored, {**restored, "restore": "2026-11-28"}).changes
