"""A class: notebooks from a roster, which are placed, move with their work, and disturb no other."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import requests

from components.hosts import remote
from tests.live.look import healthy
from tests.live.program import QUIET, Program, kill_session
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace import outputs as stack
from workspace.outputs import PROJECT, Outputs

ROSTER = ("alice", "bob", "carol", "dave")
WORK = "/home/notebook/work"
MOST_SECONDS = 240
LOST = "a1"
TAKES = "calico-lab-test-takes"
_ADDRESS = "docker inspect --format '{{.NetworkSettings.Networks.netv.IPAddress}}' \"$CONTAINER\""
_IDLE = "--entrypoint sleep calico-lab/notebook infinity"
_SINCE = "docker inspect --format '{{.State.StartedAt}}' "
# JupyterLab writes into the rest of the work folder at each start.
SAVED = f"{WORK}/saved"
_DIGEST = """
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
tar --create --directory "$folder" --sort name --numeric-owner saved | sha256sum
"""


@dataclass(frozen=True)
class Classroom:
    """The class of these tests, whose roster they change."""

    program: Program
    folder: Path

    def up(self, *lines: str, backup: bool = False, **section: object) -> Outputs:
        """Apply a roster, a line each: `alice,a1` names a host."""
        self.program.up(self.config(*lines, backup=backup, **section), seconds=MOST_SECONDS)
        return stack.read(self.program.stack)

    def config(self, *lines: str, backup: bool = False, **section: object) -> Path:
        """Write a roster, and the config that names it; `section` has more keys of `notebooks`."""
        roster = self.folder / "students.csv"
        roster.write_text("\n".join(["name,host,memory,enabled,restore", *lines, ""]))
        notebooks = {"students": str(roster), "memory": 384, "cpus": 0.5, **section}
        kept = {"backup": {"hosts": ["a0", "a2"]}} if backup else {}
        return self.program.changed_config(self.folder, {"notebooks": notebooks, **kept})

    def run(self, name: str, script: str) -> str:
        """Run a script on the host of a notebook, with its container and its volume as variables."""
        outputs = stack.read(self.program.stack)
        notebook = outputs.notebooks[name]
        variables = {"CONTAINER": notebook["container"], "VOLUME": f"{notebook['container']}-work"}
        answer = remote.run(outputs.ssh[notebook["host"]], script, variables, 240)
        assert answer.status == 0, answer
        return answer.text.strip()

    def since(self) -> dict[str, str]:
        """When each notebook was started."""
        outputs = stack.read(self.program.stack)
        return {name: self.run(name, f'{_SINCE} "$CONTAINER"') for name in outputs.notebooks}

    def save(self, name: str, mebibytes: int = 1) -> str:
        """Write files of many kinds into the work folder of a notebook; return their digest."""
        script = (
            f"mkdir -p {SAVED}/'a folder' && cd {SAVED} && echo ä >'a folder/ä' && ln -sf 'a folder/ä' link"
            f" && head -c {mebibytes}M /dev/urandom >data && chmod 600 data && sync"
        )
        self.run(name, f'docker exec "$CONTAINER" sh -c "{script}"')
        return self.run(name, _DIGEST)


@pytest.fixture(scope="module")
def classroom(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classroom]:
    """A class that runs; afterwards the lab is as before."""
    made = Classroom(program, tmp_path_factory.mktemp("class"))
    made.up(*ROSTER)
    yield made
    # Saved work is deleted only where the state says that it may be.
    made.up(*ROSTER, keepWork=False)
    program.up(seconds=MOST_SECONDS)
    healthy(program)


def answers(outputs: Outputs, name: str, status: int) -> None:
    """Fail where the proxy does not answer for a notebook with a status."""
    answer = requests.get(f"{outputs.proxy_url}{outputs.notebooks[name]['path']}api", timeout=10)
    assert answer.status_code == status, answer.text


@pytest.mark.timeout(600)
def test_class_is_spread(classroom: Classroom, program: Program) -> None:
    outputs = stack.read(program.stack)
    placed = [outputs.notebooks[name]["host"] for name in ROSTER]
    # The original's notebook has more memory than two of them.
    assert sorted(placed.count(host) for host in outputs.hosts) == [0, 2, 2]
    assert outputs.notebooks["notebook"]["host"] not in placed
    for name in ROSTER:
        eventually(partial(answers, outputs, name, 200), seconds=60)
    healthy(program)


def test_class_tokens_differ(classroom: Classroom, program: Program) -> None:
    tokens = json.loads(program.secret_output("notebookTokens"))
    assert len(set(tokens.values())) == len(ROSTER) + 1
    for name, token in tokens.items():
        asked = 'docker exec "$CONTAINER" sh -c \'cat /run/secrets/token\'; docker inspect "$CONTAINER"'
        text = classroom.run(name, asked)
        assert text.splitlines()[0] == token
        assert token not in text.partition("\n")[2], (
            "a token is in a file, and not in the container's settings"
        )


@pytest.mark.timeout(600)
def test_class_student_added(classroom: Classroom, program: Program) -> None:
    before = classroom.since()
    config = classroom.config(*ROSTER, "erin")
    changes = {
        change.name: change.operation for change in program.preview(config) if change.operation != "same"
    }
    assert {name for name, operation in changes.items() if operation == "create"} == {
        "notebook-erin",
        "notebook-erin-work",
    }
    assert not [name for name in changes if name.removeprefix("notebook-").split("-")[0] in ROSTER], changes
    classroom.up(*ROSTER, "erin")
    after = classroom.since()
    assert {name: after[name] for name in before} == before
    assert "erin" in after


@pytest.mark.timeout(600)
def test_class_student_removed(classroom: Classroom, program: Program) -> None:
    classroom.up(*ROSTER, "erin")
    before = classroom.since()
    with pytest.raises(ProgramError, match="protected"):
        program.preview(classroom.config(*ROSTER))
    destroy = subprocess.run(["make", "destroy"], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert destroy.returncode != 0
    assert "protected" in destroy.stdout + destroy.stderr
    assert classroom.since() == before
    classroom.up(*ROSTER, "erin", keepWork=False)
    outputs = classroom.up(*ROSTER, keepWork=False)
    assert "erin" not in outputs.notebooks
    after = classroom.since()
    assert after == {name: before[name] for name in after}
    classroom.up(*ROSTER)


@pytest.mark.timeout(600)
def test_class_limits_changed(classroom: Classroom) -> None:
    before = classroom.since()
    classroom.up("alice,,512", *ROSTER[1:])
    assert classroom.run("alice", "docker inspect --format '{{.HostConfig.Memory}}' \"$CONTAINER\"") == str(
        512 << 20
    )
    assert classroom.since() == before, "a change of limits restarts nothing"


def test_class_notebook_started_again(classroom: Classroom, program: Program) -> None:
    address = classroom.run("alice", _ADDRESS)
    classroom.run("alice", 'docker stop "$CONTAINER" && docker start "$CONTAINER"')
    assert classroom.run("alice", _ADDRESS) == address
    eventually(partial(answers, stack.read(program.stack), "alice", 200), seconds=120)


@pytest.mark.timeout(600)
def test_class_notebook_off(classroom: Classroom, program: Program) -> None:
    digest, address = classroom.save("bob"), classroom.run("bob", _ADDRESS)
    outputs = classroom.up("alice", "bob,,,false", *ROSTER[2:])
    assert classroom.run("bob", "docker inspect --format '{{.State.Status}}' \"$CONTAINER\"") == "exited"
    healthy(program)
    shown = json.loads(subprocess.run(["lab", "class", "--json"], capture_output=True, check=True).stdout)
    assert {one["name"]: one["state"] for one in shown["notebooks"]}["bob"] == "exited"
    # It has no address, and the routes of the others have to hold.
    eventually(partial(answers, outputs, "bob", 503), seconds=60)
    for name in ("alice", *ROSTER[2:]):
        answers(outputs, name, 200)
    classroom.run("bob", f"docker run --detach --name {TAKES} --network netv --ip {address} {_IDLE}")
    try:
        outputs = classroom.up(*ROSTER)
        assert classroom.run("bob", _ADDRESS) != address, "it is another container's by now"
        eventually(partial(answers, outputs, "bob", 200), seconds=60)
    finally:
        classroom.run("bob", f"docker rm --force {TAKES}")
    assert classroom.run("bob", _DIGEST) == digest


@pytest.mark.timeout(600)
def test_class_notebook_moved(classroom: Classroom, program: Program) -> None:
    digest = classroom.save("carol")
    outputs = stack.read(program.stack)
    former = outputs.notebooks["carol"]["host"]
    other = next(host for host in outputs.hosts if host != former)
    before = classroom.since()
    outputs = classroom.up("alice", "bob", f"carol,{other}", "dave")
    assert outputs.notebooks["carol"]["host"] == other
    assert classroom.run("carol", _DIGEST) == digest
    after = classroom.since()
    assert {name for name in before if before[name] != after[name]} == {"carol"}
    left = remote.run(outputs.ssh[former], "docker ps --all --format '{{.Names}}'; docker volume ls --quiet")
    assert "notebook-carol" not in left.text


@pytest.mark.timeout(600)
def test_class_move_interrupted(classroom: Classroom, program: Program) -> None:
    digest = classroom.save("dave", mebibytes=300)
    outputs = stack.read(program.stack)
    former = outputs.notebooks["dave"]["host"]
    other = next(host for host in outputs.hosts if host != former)
    config = classroom.config("alice", "bob", "carol", f"dave,{other}")
    command = [
        "pulumi",
        "up",
        "--yes",
        "--skip-preview",
        *QUIET,
        "--stack",
        program.stack,
        "--config-file",
        str(config),
    ]
    arrives = "du -sm $(docker volume inspect -f '{{.Mountpoint}}' calico-lab-notebook-dave-work) | cut -f 1"
    with subprocess.Popen(command, cwd=PROJECT, start_new_session=True, stdout=subprocess.DEVNULL) as up:
        deadline = time.monotonic() + MOST_SECONDS
        while time.monotonic() < deadline:
            seen = remote.run(outputs.ssh[other], arrives)
            if not seen.status and int(seen.text or 0) > 20:
                break
        kill_session(up)
    subprocess.run(["pulumi", "cancel", "--yes", "--stack", program.stack], cwd=PROJECT, check=False)
    outputs = classroom.up("alice", "bob", "carol", f"dave,{other}")
    assert outputs.notebooks["dave"]["host"] == other
    assert classroom.run("dave", _DIGEST) == digest


def test_class_tokens_written(classroom: Classroom, tmp_path: Path) -> None:
    sheet = tmp_path / "class.csv"
    subprocess.run(["lab", "class", "tokens", str(sheet)], check=True, capture_output=True)
    assert sheet.stat().st_mode & 0o777 == 0o600
    assert len(sheet.read_text().splitlines()) == len(ROSTER) + 2
    opened = subprocess.run(
        ["lab", "class", "open", "alice"], check=True, capture_output=True, text=True
    ).stdout
    assert opened.strip() in sheet.read_text()


def test_class_files_are_shared(classroom: Classroom, tmp_path: Path) -> None:
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "one.md").write_text("count\n")
    share = ["lab", "class", "share", str(tmp_path / "exercises")]
    # Whoever may write there cannot have files put elsewhere.
    classroom.run("notebook", 'docker exec "$CONTAINER" ln -s /etc shared/exercises')
    for _ in range(2):
        subprocess.run(share, check=True, capture_output=True)
    for name in ("notebook", *ROSTER):
        assert classroom.run(name, 'docker exec "$CONTAINER" cat shared/exercises/one.md') == "count"
    denied = 'docker exec "$CONTAINER" sh -c "rm shared/exercises/one.md" 2>&1 || true'
    assert "Read-only file system" in classroom.run("alice", denied)
    assert classroom.run("notebook", "ls /etc/one.md 2>/dev/null || true") == ""
    for name in ("notebook", *ROSTER):
        classroom.run(name, "rm -rf /var/lib/calico-lab-shared/exercises")


@pytest.mark.timeout(900)
def test_class_work_restored(classroom: Classroom, outputs: Outputs) -> None:
    """From a backup by one value, and again when the host of some notebooks is gone."""
    others, lost = ("alice,a0", "dave,a2"), ("bob", "carol")
    classroom.up(*others, *(f"{name},a1" for name in lost), backup=True)
    digests = {name: classroom.save(name) for name in lost}
    classroom.run("carol", "systemctl start calico-lab-backup.service")
    classroom.run("carol", f'docker exec "$CONTAINER" rm {SAVED}/data')
    classroom.up(*others, "bob,a1", "carol,a1,,,latest", backup=True)
    assert (
        classroom.run("carol", f'docker exec "$CONTAINER" ls {WORK}/before-restore/saved') == "a folder\nlink"
    )
    classroom.run("carol", f'docker exec "$CONTAINER" rm -r {WORK}/before-restore')
    assert classroom.run("carol", _DIGEST) == digests["carol"]

    before = classroom.since()
    subprocess.run(["docker", "kill", f"calico-lab-{LOST}"], check=True, capture_output=True)
    try:
        gone = [f"{name},,,,latest" for name in lost]
        placed = classroom.up(*others, *gone, backup=True, hosts=["a0", "a2"]).notebooks
        assert {placed[name]["host"] for name in lost} <= {"a0", "a2"}
        assert {name: classroom.run(name, _DIGEST) for name in lost} == digests
        after = {name: classroom.run(name, f'{_SINCE} "$CONTAINER"') for name in placed if name != "notebook"}
        assert {name for name in after if before[name] != after[name]} == set(lost)
    finally:
        subprocess.run(["docker", "start", f"calico-lab-{LOST}"], check=True, capture_output=True)
        names = " ".join(f"calico-lab-notebook-{name}" for name in lost)
        left = f'for one in {names}; do docker rm -f "$one"; docker volume rm --force "$one-work"; done'
        eventually(lambda: _succeeds(outputs.ssh[LOST], left), seconds=180, pause=1)


def _succeeds(ssh: str, script: str) -> None:
    answer = remote.run(ssh, script)
    assert answer.status == 0, answer
