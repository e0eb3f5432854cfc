"""Replaced under the same name: a service that moves to another host, and a host container."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.hosts import remote
from tests.live import agreement
from tests.live.look import CONTAINERS, everywhere, healthy
from tests.live.program import Program
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import Outputs

NOTEBOOK, BOX = "calico-lab-notebook", "calico-lab-sshbox"
SAVED = "/home/notebook/work/kept-by-a-live-test"
HELD = "docker ps --all --format '{{.Names}}'; docker volume ls --quiet; ls /etc/calico-lab"
MACHINES = {"a0": "02:42:ac:10:06:2c", "a1": "02:42:ac:10:06:da"}


@pytest.fixture
def back(program: Program) -> Iterator[None]:
    """The tracked config again, whatever has become of the test."""
    yield
    program.up(seconds=180)
    healthy(program)


def preview(program: Program, config: Path) -> str:
    return program.pulumi("preview", "--non-interactive", "--color", "never", "--config-file", str(config))


def in_the_notebook(outputs: Outputs, host: str, command: str) -> remote.Answer:
    return remote.run(outputs.ssh[host], f"docker exec {NOTEBOOK} {command}")


@pytest.mark.timeout(300)
def test_moved_service_leaves_nothing(outputs: Outputs, program: Program, tmp_path: Path, back: None) -> None:
    """A notebook, which takes its work along, and an SSH box with a fixed address, which does not."""
    assert in_the_notebook(outputs, "a1", f"touch {SAVED}").status == 0
    config = program.changed_config(tmp_path, {"notebook.host": "a2", "sshBox.host": "a1"})
    shown = preview(program, config)
    assert f"{NOTEBOOK} moves from a1 to a2" in shown
    assert f"{BOX} moves from a0 to a1, and begins there with an empty /home/admin" in shown
    program.up(config)
    healthy(program)
    assert in_the_notebook(outputs, "a2", f"rm {SAVED}").status == 0, "the saved work moves along"
    held = {host: set(text.split()) for host, text in everywhere(outputs, HELD).items()}
    own = {NOTEBOOK, f"{NOTEBOOK}-work", "notebooks"}
    assert own & held["a1"] == set()
    assert own <= held["a2"]
    own = {BOX, f"{BOX}-home", "sshbox"}
    assert own & held["a0"] == set()
    assert own <= held["a1"]


@pytest.mark.timeout(400)
def test_replaced_host_restored(outputs: Outputs, program: Program, tmp_path: Path, back: None) -> None:
    assert in_the_notebook(outputs, "a1", f"touch {SAVED}").status == 0
    before = everywhere(outputs, CONTAINERS)
    config = program.changed_config(tmp_path, {"hosts.members.a1.mac": MACHINES["a1"]})
    assert "loses its data, and joins the cluster again" in preview(program, config)
    program.up(config, seconds=180)
    healthy(program)
    after = everywhere(outputs, CONTAINERS)
    assert {host for host in before if before[host] != after[host]} == {"a1"}
    # Its Docker engine is replaced with it; the volumes of its containers are kept.
    assert in_the_notebook(outputs, "a1", f"rm {SAVED}").status == 0
    eventually(lambda: agreement.check(outputs), seconds=30, pause=1)
    # `back` replaces it once more, with a member that is not one of those the cluster began with.


def test_replaced_hosts_keep_a_quorum(program: Program, tmp_path: Path) -> None:
    changes = {f"hosts.members.{host}.mac": mac for host, mac in MACHINES.items()}
    config = program.changed_config(tmp_path, changes)
    with pytest.raises(ProgramError, match="of 3 members a quorum has to stay: change at most 1 of them"):
        program.up(config)
    healthy(program)
