"""NotebookWork: the saved work of a notebook, and its token: what outlasts its container.

Owes: the work moves with the notebook from host to host, and the former copy is removed only after the
notebook answers on its new host. Where the former host is gone for good, the work comes from the last backup.
No notebook that had work begins with an empty folder, unless the config says `restore: empty`.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.backup.rendering import RESTORE
from components.hosts.remote import HostError, messages_without_traceback, run, transfer
from components.notebooks.step import (
    COPY_SECONDS,
    KEEP_DATA,
    REMOVE,
    REMOVE_DATA,
    SCRIPTS,
    attempt,
    names,
    step,
)
from components.shared.provider import differ, is_known, tell

CREATE = SCRIPTS / "create-data.sh"
STOP, RESUME = SCRIPTS / "stop.sh", SCRIPTS / "resume.sh"
EXPORT, IMPORT, DIGEST = (SCRIPTS / f"{script}.sh" for script in ("export", "import", "digest"))
SET_ASIDE, PUT_BACK = SCRIPTS / "set-aside.sh", SCRIPTS / "put-back.sh"
TOKEN_BYTES = 32
USER = 8888
"""The ID of the image's user, who owns the saved work and the token's file."""
RUNNING = "running"
"""Docker's word for the state of a container that runs."""
ASIDE = "before-restore"
"""The folder in the work that has what was saved before a restore."""
_COMPARED = (
    *("location", "restore", "lost"),
    # A removal goes by the stored command.
    "ssh",
)
ANSWER_SECONDS = 15
TRIES = 3
PAUSE_SECONDS = 5


def effects(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what an update does to the saved work, a sentence each."""
    said = []
    before, after = olds.get("location"), news["location"]
    if before and before != after:
        said.append(f"{news['container']} moves from {before} to {after}, and its saved work with it")
    if _restores(olds, news):
        work = "an empty work folder" if news["restore"] == "empty" else f"the backup {news['restore']}"
        said.append(
            f"{news['container']} is stopped and begins again with {work}; what is saved now is kept in its "
            "folder before-restore"
        )
    return said


def _restores(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    return bool(news.get("restore")) and news.get("restore") != olds.get("restore")


def _move(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Copy the work to the notebook's new host, and compare both copies.

    Returns:
        False if the former host does not answer, and the work comes from a backup or begins anew.
    """
    if _is_lost(olds, news):
        _recover(olds, news, "it is lost")
        return False
    stopped = attempt(olds, STOP)
    if not stopped.reached and not _answers(olds):
        _recover(olds, news, stopped.error)
        return False
    if stopped.status:
        raise HostError(
            f"{olds['host']}: {olds['container']} cannot be stopped: {stopped.error}; run 'pulumi up' again"
        )
    if problem := _copy(olds, news):
        # A part of the work must not be backed up as the work.
        attempt(news, REMOVE_DATA)
        if stopped.text.strip() == RUNNING:
            attempt(olds, RESUME)
        raise HostError(
            f"{news['container']}: its work could not be copied from {olds['host']} to {news['host']}: "
            f"{problem}. It runs on {olds['host']} again; run 'pulumi up' again"
        )
    return True


def _copy(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str:
    """Copy the files from host to host, and restore a backup over the copy if that is asked for too.

    Returns:
        What went wrong; empty if nothing did.
    """
    sides = ((olds["ssh"], EXPORT.read_text()), (news["ssh"], IMPORT.read_text()))
    try:
        step(news, CREATE)
        if problem := transfer(*sides, names(news), COPY_SECONDS):
            return problem
        if len({step(props, DIGEST, seconds=COPY_SECONDS) for props in (olds, news)}) > 1:
            return "the copy differs from the original"
        if _restores(olds, news):
            _restore(news, news["restore"])
    except HostError as error:
        return str(error)
    return ""


def _answers(props: Mapping[str, Any]) -> bool:
    """Whether a host answers within some tries. One connection that fails does not make it a dead one."""
    for number in range(TRIES):
        time.sleep(PAUSE_SECONDS if number else 0)
        # Not by way of Docker, which may hang on a host that lives.
        if run(props["ssh"], ":", seconds=ANSWER_SECONDS).reached:
            return True
    return False


def _keep_what_was_left(props: Mapping[str, Any]) -> None:
    """Keep the work that was not copied when the notebook left the host to which it comes back."""
    step(props, REMOVE)
    if kept := step(props, KEEP_DATA, seconds=COPY_SECONDS):
        tell([f"{props['host']}: the work that {props['container']} had left there is kept in {kept}"])


def _is_lost(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the former host is lost; one that has left the config was declared so before."""
    return olds["location"] in (*olds["lost"], *news["lost"])


def _recover(olds: Mapping[str, Any], news: Mapping[str, Any], reason: str) -> None:
    """Take the work from a backup, because its host is gone: the last one, or the one that is asked for now.

    Where there is no backup, `lost: true` or `restore: empty` is the word that the work is given up.
    """
    container, host = news["container"], olds["host"]
    given_up = news.get("restore") == "empty" and not news.get("repositories")
    when = news["restore"] if given_up or _restores(olds, news) else "latest"
    if when != "empty" and not news.get("repositories"):
        if _is_lost(olds, news):
            tell([f"{container} begins with an empty folder: its work was on {host}, and there is no backup"])
            step(news, CREATE)
            return
        raise HostError(
            f"{container}: its work is on {host}, which does not answer ({reason}), and there is no backup. "
            f"Start {host} and run 'pulumi up' again; or write 'restore: empty' to begin with an empty folder"
        )
    step(news, CREATE)
    if when != "empty":
        _restore(news, when)


def _restore(props: Mapping[str, Any], when: str) -> None:
    """Put the files of the last backup before a moment into the volume; what is there is set aside first.

    Args:
        props: The notebook.
        when: `latest`, a UTC time, or `empty` for no files.
    """
    if when != "empty" and not props.get("repositories"):
        raise HostError(f"{props['container']}: there are no backups to restore; add the section 'backup'")
    # The volume may be what is gone.
    step(props, CREATE)
    state = step(props, STOP)
    step(props, SET_ASIDE, {"ASIDE": ASIDE})
    restored = "no"
    try:
        if when != "empty":
            _from_backup(props, when)
        restored = "yes"
    finally:
        step(props, PUT_BACK, {"ASIDE": ASIDE, "RESTORED": restored})
        # After a restore, the update of the container starts it.
        if restored == "no" and state == RUNNING:
            attempt(props, RESUME)


def _from_backup(props: Mapping[str, Any], when: str) -> None:
    stdin = json.dumps(props["repositories"])
    answer = attempt(props, RESTORE, {"WHEN": when}, COPY_SECONDS, stdin=stdin)
    if answer.status:
        raise HostError(
            f"{props['host']}: {props['container']} cannot be restored: {answer.error}. What was saved is as "
            "it was; write 'restore: empty' to begin with an empty folder"
        )
    found = json.loads(answer.text)
    tell(
        [
            f"{props['container']} has the work of {found['time']}, from the backups of {found['source']}: "
            f"{found['files']} files"
        ]
    )


class _WorkProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        tell(effects(olds, news) if is_known({**news, "repositories": None}) else [])
        return dynamic.CheckResult(dict(news), [])

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        with messages_without_traceback():
            step(props, CREATE)
            if props.get("restore") and props["restore"] != "empty":
                _restore(props, props["restore"])
        outs = {**props, "token": secrets.token_hex(TOKEN_BYTES), "left_behind": ""}
        return dynamic.CreateResult(props["container"], outs)

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(_COMPARED, olds, news))

    def update(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        left_behind = olds.get("left_behind") or ""
        with messages_without_traceback():
            # Not by the ssh command: another port or user is a way to the same host.
            if olds["location"] != news["location"]:
                if left_behind == news["location"]:
                    _keep_what_was_left(news)
                    left_behind = ""
                if not _move(olds, news):
                    left_behind = olds["location"]
            elif _restores(olds, news):
                _restore(news, news["restore"])
        return dynamic.UpdateResult({**news, "token": olds["token"], "left_behind": left_behind})

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        with messages_without_traceback():
            step(props, REMOVE_DATA)


class NotebookWork(dynamic.Resource, module="calico-lab", name="NotebookWork"):
    """The saved work and the token of one notebook."""

    token: Output[str]
    """The token that opens the notebook (secret)."""
    left_behind: Output[str]
    """The location that has work that was not copied from there; empty if there is none."""

    def __init__(
        self,
        name: str,
        common: Mapping[str, Input[Any]],
        *,
        repositories: Input[Mapping[str, Any]] | None,
        lost: Sequence[str],
        opts: ResourceOptions,
    ) -> None:
        """Keep the work of a notebook.

        Args:
            name: The resource's name.
            common: What both resources of a notebook have (`component.py`).
            repositories: The backups by the host that made them (secret); None without backups.
            lost: The locations that are gone for good.
            opts: More resource options.
        """
        props = {
            **common,
            "repositories": repositories,
            "lost": list(lost),
            "token": None,
            "left_behind": None,
        }
        secret = ResourceOptions(additional_secret_outputs=["token", "repositories"])
        super().__init__(_WorkProvider(), name, props, ResourceOptions.merge(opts, secret))
