"""The command `calico-lab-backup` on a host that has a pretended restic and Docker."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.backup.rendering import REPOSITORY_FILE, RESTORE
from tests.unit.pretend_host import PretendHost

PROGRAM = RESTORE.with_name("calico-lab-backup")
RECORDS = "/var/lib/calico-lab/backup-status"
NO_SNAPSHOT = 3
DOCKER = """
case "$1 $2 $3 $*" in
"volume ls "*) ls "{root}/volumes" ;;
*.Labels*) echo "${{@: -1}}" ;;
*.Mountpoint*) [ -d "{root}/volumes/${{@: -1}}" ] && echo "{root}/volumes/${{@: -1}}/_data" ;;
"ps "*) cat "{root}/used" 2>/dev/null ;;
esac
"""


class BackupHost(PretendHost):
    """A host with volumes in `volumes/<notebook>/_data`, whose label is the volume's name."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.store = root / "store"
        self.store.mkdir()
        (root / "volumes").mkdir()
        self.program("docker", DOCKER.format(root=root))
        self.program("restic", f"STORE={self.store}\n{Path(__file__).with_name('restic.sh').read_text()}")
        self.write(REPOSITORY_FILE, json.dumps(self.repositories("a1")))

    @staticmethod
    def repositories(*sources: str) -> dict[str, dict[str, str]]:
        """What opens the repositories of some source hosts."""
        return {
            source: {
                "url": f"rest:https://10.0.0.1:8000/{source}/",
                "user": source,
                "password": "secret",
                "ca": "PEM",
            }
            for source in sources
        }

    def volume(self, name: str, **files: str) -> Path:
        """Create a volume, or add files to it; returns its folder."""
        folder = self.root / "volumes" / name / "_data"
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    def call(self, verb: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a verb; a file `down` in the store stops the server."""
        instead = {"verb=${1-}": f"verb={verb}", "if ! answers; then": "if [ -e $STORE/down ]; then"}
        return self.run(PROGRAM, {"STORE": str(self.store), **variables}, stdin, instead=instead)

    def records(self) -> dict[str, Any]:
        """The records of all notebooks."""
        done = self.call("status")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["notebooks"]
        return found

    def restore(
        self, notebook: str, volume: str, *sources: str, when: str = "latest"
    ) -> subprocess.CompletedProcess[str]:
        """Restore a notebook's work into a volume."""
        stdin = json.dumps(self.repositories(*(sources or ("a1",))))
        return self.call("restore", stdin, NOTEBOOK=notebook, VOLUME=volume, WHEN=when)


@pytest.fixture
def host(tmp_path: Path) -> BackupHost:
    return BackupHost(tmp_path)


def test_run_without_volumes_opens_no_repository(host: BackupHost) -> None:
    assert host.call("run").returncode == 0
    assert not [call for call in host.calls if call.startswith("restic")]


def test_run_records_each_notebook_as_verified(host: BackupHost) -> None:
    host.volume("alice", notes="one")
    host.volume("bob")
    done = host.call("run")
    assert done.returncode == 0, done.stderr
    for notebook in ("alice", "bob"):
        record = host.records()[notebook]
        assert record["verified"]
        assert record["compared"] is True
        assert record["error"] is None
        assert (record["host"], record["volume"]) == ("a1", notebook)


def test_run_repeats_the_trial_restore_only_for_new_content(host: BackupHost) -> None:
    volume = host.volume("alice", notes="one")
    host.call("run")
    host.call("run")
    assert len([call for call in host.calls if "restore" in call and "--target" in call]) == 1
    (volume / "notes").write_text("two")
    host.call("run")
    assert len([call for call in host.calls if "restore" in call and "--target" in call]) == 2


def test_run_backs_up_the_others_when_one_fails(host: BackupHost) -> None:
    for notebook in ("alice", "bob", "carol"):
        host.volume(notebook, notes=notebook)
    assert host.call("run").returncode == 0
    before = host.records()
    (host.store / "fail-backup-bob").touch()
    done = host.call("run")
    assert done.returncode == 1
    assert "the backup of notebook bob failed" in done.stderr
    assert "1 of 3 backups failed" in done.stderr
    after = host.records()
    assert [name for name, record in after.items() if record["error"]] == ["bob"]
    assert after["bob"]["snapshot"] == before["bob"]["snapshot"]
    assert "secret" not in json.dumps(after) + done.stderr
    assert after["alice"]["time"] > before["alice"]["time"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("damaged", "differs from the volume"),
        ("incomplete", "files and folders"),
        ("errors", "There were 2 errors"),
    ],
)
def test_run_finds_a_snapshot_that_is_not_what_was_saved(host: BackupHost, fault: str, error: str) -> None:
    host.volume("alice", notes="one")
    (host.store / fault).touch()
    assert host.call("run").returncode == 1
    record = host.records()["alice"]
    assert error in record["error"]
    assert "verified" not in record
    (host.store / fault).unlink()
    assert host.call("run").returncode == 0
    assert host.records()["alice"]["error"] is None


def test_run_does_not_blame_the_backup_for_files_that_change(host: BackupHost) -> None:
    volume = host.volume("alice", notes="one")
    restic = (host.root / "programs" / "restic").read_text()
    host.program("restic", f'case "$*" in *restore*) echo more >>{volume}/notes ;; esac\n{restic}')
    done = host.call("run")
    assert done.returncode == 0, done.stderr
    record = host.records()["alice"]
    assert record["verified"]
    assert record["compared"] is False


def test_run_records_why_the_server_cannot_be_reached(host: BackupHost) -> None:
    host.volume("alice")
    (host.store / "down").touch()
    done = host.call("run")
    assert done.returncode == 1
    assert "the server at 10.0.0.1:8000 does not answer" in done.stderr
    assert "does not answer" in host.records()["alice"]["error"]


def test_run_forgets_the_record_of_a_notebook_that_has_moved(host: BackupHost) -> None:
    host.volume("alice")
    volume = host.volume("bob")
    host.call("run")
    volume.rmdir()
    volume.parent.rmdir()
    host.call("run")
    assert set(host.records()) == {"alice"}


def test_restore_takes_the_newest_snapshot_that_is_not_younger(host: BackupHost) -> None:
    source = host.volume("alice", notes="one")
    host.call("run")
    first = host.records()["alice"]["time"]
    (source / "notes").write_text("two")
    host.call("run")
    for when, text in ((first, "one"), ("latest", "two")):
        volume = host.volume(f"restored-{text}")
        done = host.restore("alice", volume.parent.name, when=when)
        assert done.returncode == 0, done.stderr
        assert (volume / "notes").read_text() == text
        assert sorted(path.name for path in volume.parent.iterdir()) == ["_data"]
        assert json.loads(done.stdout)["files"] == 1


@pytest.mark.parametrize(("first", "second"), [("a1", "a2"), ("a2", "a1")])
def test_restore_takes_the_newest_snapshot_of_all_sources(host: BackupHost, first: str, second: str) -> None:
    # The notebook has moved from one host to the other, and was saved on both.
    for source in (first, second):
        host.volume("alice", notes=f"on {source}")
        host.write(REPOSITORY_FILE, json.dumps(host.repositories(source)))
        assert host.call("run").returncode == 0
    volume = host.volume("restored")
    done = host.restore("alice", "restored", "a2", "a1", "a0")
    assert done.returncode == 0, done.stderr
    assert (volume / "notes").read_text() == f"on {second}"
    assert json.loads(done.stdout)["source"] == second


@pytest.mark.parametrize("when", ["latest", "2020-01-01"])
def test_restore_without_a_snapshot_has_a_status_of_its_own(host: BackupHost, when: str) -> None:
    host.volume("alice", notes="one")
    host.call("run")
    host.volume("restored")
    notebook = "nobody" if when == "latest" else "alice"
    done = host.restore(notebook, "restored", when=when)
    assert done.returncode == NO_SNAPSHOT
    assert "there is no snapshot" in done.stderr


def test_restore_is_a_failure_while_a_repository_cannot_be_read(host: BackupHost) -> None:
    # An empty notebook would be started for one whose work is there.
    host.volume("restored")
    (host.store / "down").touch()
    done = host.restore("alice", "restored")
    assert done.returncode == 1
    assert "the backups of a1 were not read" in done.stderr


@pytest.mark.parametrize("when", ["yesterday", "2026-13-45", "", "12:00"])
def test_restore_refuses_what_is_no_time(host: BackupHost, when: str) -> None:
    host.volume("restored")
    done = host.restore("alice", "restored", when=when or " ")
    assert done.returncode == 1
    assert "is not a time" in done.stderr


@pytest.mark.parametrize("stdin", ["", "{}", "[]", "text"])
def test_restore_refuses_to_look_nowhere(host: BackupHost, stdin: str) -> None:
    host.volume("restored")
    done = host.call("restore", stdin, NOTEBOOK="alice", VOLUME="restored")
    assert done.returncode == 1
    assert "names no repository" in done.stderr


def test_restore_leaves_a_volume_with_files_as_it_is(host: BackupHost) -> None:
    host.volume("alice", notes="one")
    host.call("run")
    volume = host.volume("restored", notes="mine")
    done = host.restore("alice", "restored")
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert (volume / "notes").read_text() == "mine"


def test_restore_of_a_damaged_snapshot_leaves_the_volume_empty(host: BackupHost) -> None:
    host.volume("alice", notes="one")
    host.call("run")
    volume = host.volume("restored")
    (host.store / "incomplete").touch()
    done = host.restore("alice", "restored")
    assert done.returncode == 1
    assert "cannot be restored" in done.stderr
    assert list(volume.iterdir()) == []
    assert list(volume.parent.iterdir()) == [volume]


def test_restore_refuses_a_volume_in_use(host: BackupHost) -> None:
    host.volume("restored")
    host.write("/used", "0123456789ab\n")
    done = host.restore("alice", "restored")
    assert done.returncode == 1
    assert "a container uses the volume" in done.stderr
