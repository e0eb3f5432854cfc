"""Backups of the notebooks' work: saved, verified, restored on another host, and safe from the source."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.backup.rendering import REPOSITORY_FILE, RESTORE
from components.hosts import remote
from components.shared.secrets import make_authority
from tests.live.program import Program
from workspace.outputs import Outputs

SECTION = {"hosts": ["a0", "a2"], "keep": {"last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}}
SOURCE, BACKUP_HOST, OTHER = "a1", "a0", "a2"
NOTEBOOK = "backup-test"
VOLUME = f"calico-lab-notebook-{NOTEBOOK}-work"
FOLDER = f"/var/lib/docker/volumes/{VOLUME}/_data"
KEPT = "/var/lib/calico-lab-backup"
RUN = "systemctl start calico-lab-backup.service"
FILES = f"""
docker volume create --label calico-lab.notebook={NOTEBOOK} {VOLUME} >/dev/null
cd {FOLDER}
chown 8888:8888 .
mkdir -p sub
head -c 5000000 /dev/urandom >sub/large
printf 'one' >"$(printf 'a name\\nof two lines')"
ln -s sub/large link
ln -f sub/large hard
chown -h 8888:8888 * sub/*
chmod 0640 sub/large
"""
TREE = f"""
cd {FOLDER}
{{ find . -printf '%y %m %U:%G %T@ %n %l %P\\n'; find . -type f -exec sha256sum {{}} +; }} | sort | sha256sum
"""
# Runs restic with what the host's own repository.json has; other files may be named in its place.
RESTIC = r"""
url='"rest:https://\(.user):\(.password)@\(.url | ltrimstr("rest:https://"))"'
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
jq -j '.[] | .password' "$REPOSITORY" >"$work/password"
jq -j '.[] | .ca' "$REPOSITORY" >"$work/ca"
jq -j ".[] | $url" "$REPOSITORY" >"$work/url"
timeout 60 restic --repository-file "$work/url" --password-file "$work/password" --cacert "$work/ca" \
    --no-cache --json $ARGUMENTS
"""
# The arguments and environments of all processes while a backup runs.
WATCH = f"""
{{
    {RUN} & started=$!
    while kill -0 "$started" 2>/dev/null; do
        cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u
    done
    wait "$started" && echo 'the backup has succeeded'
}} | sort -u
"""


class BackupLab:
    """The lab with backups."""

    def __init__(self, outputs: Outputs, program: Program) -> None:
        self.outputs, self.program = outputs, program

    def on(
        self, host: str, script: str, variables: dict[str, str] | None = None, *, stdin: str = ""
    ) -> remote.Answer:
        """Run a script on a host."""
        return remote.run(self.outputs.ssh[host], script, variables, 100, stdin=stdin)

    def done(self, host: str, script: str, variables: dict[str, str] | None = None) -> str:
        """Run a script on a host that has to succeed."""
        answer = self.on(host, script, variables)
        assert answer.status == 0, f"{host}: {answer.error}\n{answer.text}"
        return answer.text.strip()

    def record(self) -> dict[str, Any]:
        """The record of the notebook's backups."""
        found: dict[str, Any] = json.loads(self.done(SOURCE, "calico-lab-backup status"))["notebooks"][
            NOTEBOOK
        ]
        return found

    def repositories(self) -> dict[str, Any]:
        """The component's output, as `restore.sh` gets it."""
        output = self.program.resource("Backup")["outputs"]["repositories"]
        found: dict[str, Any] = json.loads(output["plaintext"])
        assert set(found) == set(self.outputs.hosts)
        return found

    def restore(self, when: str = "latest", notebook: str = NOTEBOOK) -> remote.Answer:
        """Restore the notebook into a new volume on another host."""
        self.done(OTHER, f"docker volume rm -f {VOLUME} >/dev/null; docker volume create {VOLUME} >/dev/null")
        variables = {"VOLUME": VOLUME, "NOTEBOOK": notebook, "WHEN": when}
        return self.on(OTHER, RESTORE.read_text(), variables, stdin=json.dumps(self.repositories()))

    def restic(self, arguments: str, repository: dict[str, str] | None = None) -> remote.Answer:
        """Run restic on the source's repository, with its own password or another."""
        path = REPOSITORY_FILE
        if repository:
            path = "/run/backup-test.json"
            stored = self.on(SOURCE, f"umask 077; cat >{path}", stdin=json.dumps({SOURCE: repository}))
            assert stored.status == 0, stored.error
        return self.on(SOURCE, RESTIC, {"ARGUMENTS": arguments, "REPOSITORY": path})

    def own(self) -> dict[str, str]:
        """What opens the source's repository."""
        return dict(self.repositories()[SOURCE])

    def snapshots(self) -> list[str]:
        """The snapshots of the notebook, the oldest first."""
        answer = self.restic(f"snapshots --tag notebook={NOTEBOOK}")
        assert answer.status == 0, answer.error
        return [snapshot["short_id"] for snapshot in json.loads(answer.text)]


@pytest.fixture(scope="module")
def lab(outputs: Outputs, program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupLab]:
    config = program.changed_config(tmp_path_factory.mktemp("backup"), {"backup": SECTION})
    try:
        program.up(config, seconds=280)
        made = BackupLab(outputs, program)
        # It would take snapshots beside those of the tests.
        made.done(SOURCE, "systemctl stop calico-lab-backup.timer")
        yield made
    finally:
        program.up(seconds=280)
        left = f"{KEPT} {KEPT.replace('lib', 'lib/private')} /run/backup-test.json"
        clean = f"docker volume rm -f {VOLUME} >/dev/null; rm -rf {left}"
        for host in outputs.hosts:
            remote.run(outputs.ssh[host], clean)


@pytest.fixture(scope="module")
def saved(lab: BackupLab) -> dict[str, str]:
    """Two snapshots of a notebook whose volume is gone then: the tree's hash by the time of the snapshot."""
    lab.done(SOURCE, FILES)
    trees = {}
    for change in ("true", f"cd {FOLDER}; echo two >new; rm link"):
        lab.done(SOURCE, change)
        lab.done(SOURCE, RUN)
        record = lab.record()
        assert record["error"] is None
        assert record["verified"] >= record["time"][:19]
        assert record["compared"] is True
        trees[record["time"]] = lab.done(SOURCE, TREE)
    assert len(set(trees.values())) == 2
    return trees


@pytest.mark.timeout(420)
def test_backup_restored_on_another_host_has_the_same_hashes(lab: BackupLab, saved: dict[str, str]) -> None:
    for time, tree in saved.items():
        answer = lab.restore(time)
        assert answer.status == 0, answer.error
        report = json.loads(answer.text)
        assert (report["time"], report["source"], report["unreachable"]) == (time, SOURCE, [])
        assert lab.done(OTHER, TREE) == tree
    answer = lab.restore()
    assert json.loads(answer.text)["time"] == max(saved)


def test_backup_restore_says_that_there_is_no_snapshot(lab: BackupLab, saved: dict[str, str]) -> None:
    assert saved
    assert lab.restore("2020-01-01").status == 3
    assert lab.restore(notebook="nobody").status == 3


def test_backup_password_is_not_shown_to_other_processes(lab: BackupLab, saved: dict[str, str]) -> None:
    assert saved
    lab.done(SOURCE, f"date >{FOLDER}/again")
    text = lab.done(SOURCE, WATCH)
    assert "the backup has succeeded" in text.splitlines()
    assert "--repository-file" in text
    for repository in lab.repositories().values():
        assert repository["password"] not in text


def test_backup_host_runs_the_server_without_privileges(lab: BackupLab) -> None:
    for host in SECTION["hosts"]:
        shown = lab.done(
            host,
            "pid=$(systemctl show -P MainPID calico-lab-backup-server)\n"
            "grep -E '^(Uid|CapEff|NoNewPrivs):' /proc/$pid/status; ss -Hltn 'sport = :8000'",
        )
        assert "CapEff:\t0000000000000000" in shown
        assert "NoNewPrivs:\t1" in shown
        assert "Uid:\t0" not in shown
        listening = [line.split()[3] for line in shown.splitlines() if line.startswith("LISTEN")]
        assert listening == [f"{lab.outputs.hosts[host]}:8000"]


def test_backup_host_keeps_snapshots_that_the_source_removes(lab: BackupLab, saved: dict[str, str]) -> None:
    assert saved
    before = lab.snapshots()
    # restic's exit status is 0 even so.
    for arguments in (" ".join(before), "--keep-last 1 --prune --group-by tags"):
        assert "403 Forbidden" in lab.restic(f"forget {arguments}").error
    assert lab.snapshots() == before


def test_backup_host_refuses_others(lab: BackupLab) -> None:
    own = lab.own()
    stranger, _ = make_authority("stranger")
    wrong = {
        "password": {**own, "password": own["password"][::-1]},
        "repository": {**own, "url": own["url"].replace(f"/{SOURCE}/", f"/{OTHER}/")},
        "authority": {**own, "ca": stranger},
    }
    assert lab.restic("cat config", own).status == 0
    said = {name: lab.restic("cat config", repository) for name, repository in wrong.items()}
    assert {name: answer.status != 0 for name, answer in said.items()} == dict.fromkeys(wrong, True)
    assert "401" in said["password"].error + said["password"].text
    assert "401" in said["repository"].error + said["repository"].text
    assert "x509" in said["authority"].error + said["authority"].text


def test_backup_host_prunes_and_checks(lab: BackupLab, saved: dict[str, str]) -> None:
    assert saved
    latest = lab.snapshots()[-1]
    lab.done(BACKUP_HOST, "systemctl start calico-lab-backup-prune.service")
    assert lab.snapshots() == [latest]
    checked = json.loads(lab.done(BACKUP_HOST, "calico-lab-backup status"))["repositories"]
    assert checked[SOURCE]["error"] is None


@pytest.mark.timeout(420)
def test_backup_stays_without_the_section_and_is_continued(
    lab: BackupLab, saved: dict[str, str], tmp_path: Path
) -> None:
    assert saved
    snapshots, password = lab.snapshots(), lab.own()["password"]
    said = lab.program.up(seconds=200)
    assert f"the backups stay in {KEPT}" in said
    assert lab.on(SOURCE, "command -v calico-lab-backup").status != 0
    lab.program.up(lab.program.changed_config(tmp_path, {"backup": SECTION}), seconds=200)
    assert lab.own()["password"] != password
    assert lab.snapshots() == snapshots
    assert lab.restore().status == 0


def test_backup_finds_a_repository_that_was_changed(lab: BackupLab, saved: dict[str, str]) -> None:
    assert saved
    damage = f"""
    for pack in $(find {KEPT}/repositories/{SOURCE}/data -type f -size +1000k); do
        printf 'changed' | dd of="$pack" bs=1 seek=5000 conv=notrunc status=none
    done
    """
    lab.done(BACKUP_HOST, damage)
    lab.done(SOURCE, f"date >{FOLDER}/after")
    assert lab.on(SOURCE, RUN).status != 0
    record = lab.record()
    assert record["error"]
    assert record["failed"]
    # The volume on the other host is left as it was, that is empty.
    answer = lab.restore()
    assert answer.status == 1
    assert "cannot be restored" in answer.error
    assert lab.done(OTHER, f"ls -A {FOLDER}") == ""
