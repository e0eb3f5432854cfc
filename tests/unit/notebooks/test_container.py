"""The container of a notebook: what an update does on its host and on the former one."""

from pathlib import Path
from typing import Any

import pytest

from components.hosts.remote import Answer
from components.notebooks import container, step
from components.notebooks.container import _ContainerProvider
from components.services.health import READY_SCRIPT
from tests.unit.pretend_host import PretendHost

HERE: dict[str, Any] = {
    **dict.fromkeys((*step.NAMES, *container.VARIABLES), "x"),
    **{"container": "calico-lab-notebook-x", "host": "a0", "location": "a0", "ssh": "ssh a0", "lab": "{}"},
    **{"enabled": True, "token": "secret", "memory": 512.0},
}
THERE = {**HERE, "host": "a1", "location": "a1", "ssh": "ssh a1"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What runs on the hosts, as pairs of the ssh command and the script's name; all succeeds."""
    seen: list[tuple[str, str]] = []
    names = {path.read_text(): path.stem for path in step.SCRIPTS.glob("*.sh")}
    names[READY_SCRIPT.read_text()] = "ready"

    def run(ssh: str, script: str, *_: object, **__: object) -> Answer:
        seen.append((ssh, names[script]))
        return Answer(0, "192.168.0.7\n", "")

    monkeypatch.setattr(step, "run", run)
    return seen


def update(olds: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    outs = _ContainerProvider().update("id", olds, news).outs
    assert outs is not None
    return dict(outs)


def test_container_that_moves_leaves_its_former_host(ran: list[tuple[str, str]]) -> None:
    assert update(HERE, THERE)["given_address"] == "192.168.0.7"
    assert ran[-3:] == [("ssh a1", "ready"), ("ssh a0", "remove"), ("ssh a0", "remove-data")]


def test_container_that_moves_leaves_work_that_was_not_copied(
    ran: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    update(HERE, {**THERE, "left_behind": "a0"})
    assert ran[-2:] == [("ssh a0", "remove"), ("ssh a0", "keep-data")]
    assert "the former work of calico-lab-notebook-x is kept there, in 192.168.0.7" in capfd.readouterr().err


def test_container_is_reached_another_way_from_then_on() -> None:
    assert _ContainerProvider().diff("id", HERE, {**HERE, "ssh": "ssh -p 2222 a0"}).changes


def test_container_stays_when_its_host_is_reached_another_way(ran: list[tuple[str, str]]) -> None:
    update({**HERE, "ssh": "ssh a9"}, HERE)
    assert "remove-data" not in [name for _, name in ran]
    assert ran[-1] == ("ssh a0", "ready")


def test_container_that_is_off_is_stopped(ran: list[tuple[str, str]]) -> None:
    assert update(HERE, {**HERE, "enabled": False})["given_address"] == ""
    assert ran == [("ssh a0", "stop")]


def test_container_whose_work_is_gone_says_so(
    monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    said = "a0: the volume x-work with the saved work of x is gone"
    monkeypatch.setattr(step, "run", lambda *_, **__: Answer(0, f"{said}\n192.168.0.7\n", ""))
    assert update(HERE, HERE)["given_address"] == "192.168.0.7"
    assert said in capfd.readouterr().err
    assert ran == []


def test_keep_data_moves_the_files_out_of_the_volume(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    volume = host.path("/volumes/x-work/_data")
    host.write("/volumes/x-work/_data/saved/data", "newer")
    host.program(
        "docker",
        f'[ -d "{volume}" ] || exit 1\n'
        f'case "$*" in *inspect*) echo "{volume}" ;; *) rm -r "{volume}" ;; esac',
    )
    done = host.run(step.KEEP_DATA, {"VOLUME": "x-work"})
    assert done.returncode == 0, done.stderr
    [kept] = host.path("/var/lib/calico-lab-left").iterdir()
    assert done.stdout == f"{kept}\n"
    assert kept.name.startswith("x-work-")
    assert (kept / "saved" / "data").read_text() == "newer"
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert not volume.exists()
    done = host.run(step.KEEP_DATA, {"VOLUME": "x-work"})
    assert (done.returncode, done.stdout) == (0, "")


def test_container_that_leaves_a_dead_host_says_that_its_work_is_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(ssh: str, *_: object, **__: object) -> Answer:
        return Answer(0, "192.168.0.7\n", "") if ssh == "ssh a1" else Answer(255, "", "no route")

    monkeypatch.setattr(step, "run", run)
    update(HERE, {**THERE, "left_behind": "a0"})
    said = capfd.readouterr().err
    assert "the former calico-lab-notebook-x is still there (no route). Its work was not copied" in said
    assert "copy the files of the volume x, and remove it" in said


def test_container_without_an_address_is_left_to_its_health_check(
    monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(step, "run", lambda *_, **__: Answer(0, "\n", ""))
    assert update(HERE, HERE)["given_address"] == ""
    assert ran == []
