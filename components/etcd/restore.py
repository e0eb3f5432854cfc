"""Restore: rebuilds a cluster that has lost its quorum from a snapshot, once for each value of `restoreFrom`.

The snapshot is sent from the host that keeps it to the host of each member, and restored there beside the
member's data. Until then nothing has changed. Then all members are stopped, so that none of the former
cluster is left, and the datastore's clients too. The restored members start as a new cluster, with a token
and so an identity of its own. The clients start last.

Owes: a cluster with a quorum is not restored, unless the config says so. All members have the same snapshot.
What has happened since the snapshot is lost in etcd; the clients bring back what they know (`Clients`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.etcd.rendering import client_url, peer_url
from components.hosts.host import ssh_commands
from components.hosts.remote import PROJECT, Answer, HostError, ask, messages_without_traceback, transfer
from components.shared.provider import differ, is_known, tell

if TYPE_CHECKING:
    from components.etcd.config import EtcdConfig
    from components.hosts.host import Host

_SCRIPT = Path(__file__).with_name("scripts") / "restore.sh"
STEP_SECONDS = 120
"""Time limit of a step on a host."""
COPY_SECONDS = 1800
"""Time limit of verifying a snapshot, or of sending it to a member and restoring it there."""
QUORUM_SECONDS = 90
LATEST = "latest"
# A host that keeps none has none.
_LIST = "! type -P calico-lab-snapshot >/dev/null || calico-lab-snapshot list"
_VERIFY = 'calico-lab-snapshot verify "$FILE"'
_EXPORT = 'cat "$FILE"'
NEXT = "then run 'pulumi up' again"


@dataclass(frozen=True)
class Clients:
    """The programs on hosts that watch the datastore: how they are stopped, and start with restored data.

    Each script runs on all of the hosts at once; the next one begins when all have ended.
    """

    hosts: Sequence[str]
    """The hosts."""
    pause: Path
    """Stops them."""
    hold: Path
    """Runs when the restored cluster has a quorum, and no client does."""
    resume: Path
    """Starts them."""
    variables: Mapping[str, str]
    """Exported to all three, with `HOST`."""


def effects(news: Mapping[str, Any]) -> list[str]:
    """Say what a restore does, a sentence each."""
    return [
        f"etcd: all members are stopped, and begin again with the snapshot {news['restore_from']}; what was "
        "written since then is lost, but for what the Docker driver knows of running containers"
    ]


def chosen(records: Sequence[Mapping[str, Any]], moment: str) -> Mapping[str, Any] | None:
    """Returns the newest snapshot that was taken by a moment; None if there is none.

    Args:
        records: The snapshots of all hosts.
        moment: `latest`, or a UTC time.
    """
    by_then = [
        record
        for record in records
        if moment == LATEST or datetime.fromisoformat(record["time"]) <= utc(moment)
    ]
    return max(by_then, key=lambda record: record["time"], default=None)


def utc(moment: str) -> datetime:
    """Returns the time that a text means; UTC if it names no zone.

    Raises:
        ValueError: It is not a time as in ISO 8601.
    """
    time = datetime.fromisoformat(moment)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class _Restore:
    """One restore."""

    def __init__(self, props: Mapping[str, Any]) -> None:
        self._props = props
        self._members: Mapping[str, Mapping[str, str]] = props["members"]

    def run(self) -> dict[str, Any]:
        """Restore the cluster; returns the snapshot's record."""
        quorum = has_quorum(self._props)
        if quorum and (interrupted := pending(self._props)):
            tell([f"etcd: the restore of {interrupted['time']} was interrupted after its data were in place"])
            self._finish(interrupted)
            return interrupted
        if quorum and not self._props["despite_quorum"]:
            raise HostError(refusal(self._props))
        self._every_host_answers()
        record = self._chosen()
        self._prepare(record)
        try:
            self._members_do("stop")
            self._all("stop the datastore's clients", self._clients("pause"))
        except HostError:
            # The data are as they were.
            ask_members(self._props, "start")
            self._resume(["resume"], "Nothing was restored; what is stopped starts with the restore")
            raise
        # If one of these fails, there is no quorum, and the next update begins again.
        asked = {"asked": self._props["restore_from"]}
        self._members_do("replace", {"RECORD": json.dumps({**record, **asked})})
        self._members_do("start")
        self._wait_for_quorum()
        self._finish(record)
        return dict(record)

    def _finish(self, record: Mapping[str, Any]) -> None:
        """Start the clients of a cluster that is restored."""
        self._resume()
        self._members_do("finish")
        tell(
            [
                f"etcd has the data of {record['time']}, from the snapshot on {record['host']}: "
                f"{record['keys']} keys at revision {record['revision']}"
            ]
        )

    def _every_host_answers(self) -> None:
        hosts = dict.fromkeys([*self._members, *self._props["clients"]["hosts"]])
        self._all("reach the host", {host: ("true", {}) for host in hosts})

    def _chosen(self) -> Mapping[str, Any]:
        moment = self._props["restore_from"]
        host, _, file = moment.partition(":/")
        if file:
            path = f"/{file}"
            answer = self._all("verify the snapshot", {host: (_VERIFY, {"FILE": path})}, COPY_SECONDS)[host]
            return {**json.loads(answer.text), "host": host, "file": path}
        ssh = {host: self._props["ssh"][host] for host in self._props["sources"]}
        answers = ask(ssh, _LIST, {}, COPY_SECONDS)
        silent = [host for host, answer in answers.items() if answer.status]
        records = [
            {**json.loads(line), "host": host}
            for host, answer in answers.items()
            if host not in silent
            for line in answer.text.splitlines()
        ]
        record = chosen(records, moment)
        if silent:
            tell(
                [f"etcd: the snapshots of {', '.join(silent)} are not read, because the host does not answer"]
            )
        if not record:
            raise HostError(
                f"etcd.restoreFrom: {moment}: none of the hosts {', '.join(ssh)} has a good snapshot of that "
                "time or before; nothing was changed. See 'calico-lab-snapshot list' on these hosts"
            )
        return record

    def _prepare(self, record: Mapping[str, Any]) -> None:
        """Send the snapshot to each member's host, and restore it there beside the member's data."""
        bumps = self._members_do("bumps").values()
        variables = {
            "STEP": "prepare",
            "FILE": record["file"],
            "SHA256": record["sha256"],
            "CLUSTER": ",".join(f"{name}={member['peer']}" for name, member in self._members.items()),
            # A member of the former cluster that comes back is not one of this.
            "TOKEN": f"{self._props['token']}-{datetime.now(UTC):%Y%m%d%H%M%S}",
            # All members or none, because their data would differ otherwise.
            "BUMP": "yes" if all(answer.text.strip() == "yes" for answer in bumps) else "",
        }
        ssh = self._props["ssh"]
        for name, member in self._members.items():
            own = {"MEMBER": name, "PEER_URL": member["peer"]}
            problem = transfer(
                (ssh[record["host"]], _EXPORT),
                (ssh[name], _SCRIPT.read_text()),
                variables | own,
                COPY_SECONDS,
            )
            if problem:
                raise HostError(
                    f"{name}: etcd: the snapshot of {record['host']} cannot be restored: {problem}. Nothing "
                    f"was changed; {NEXT}"
                )

    def _members_do(self, step: str, variables: Mapping[str, str] | None = None) -> dict[str, Answer]:
        answers = ask_members(self._props, step, variables)
        self._check(f"{step} the member", answers)
        return answers

    def _wait_for_quorum(self) -> None:
        deadline = monotonic() + QUORUM_SECONDS
        while not has_quorum(self._props):
            if monotonic() > deadline:
                raise HostError(
                    f"{', '.join(self._members)}: etcd: the restored cluster has no quorum after "
                    f"{QUORUM_SECONDS} s; see 'journalctl -u calico-lab-etcd' on these hosts, {NEXT}"
                )
            sleep(0.5)

    def _resume(
        self,
        steps: Sequence[str] = ("hold", "resume"),
        otherwise: str = "The data are restored: do not restore them again",
    ) -> None:
        """Start the clients. A failure is said and no error: the cluster is restored, or as it was."""
        for step in steps:
            try:
                self._all(f"{step} the datastore's clients", self._clients(step))
            except HostError as error:
                tell([f"{error}. {otherwise}"])

    def _clients(self, step: str) -> dict[str, tuple[str, Mapping[str, str]]]:
        clients = self._props["clients"]
        script = (PROJECT / clients[step]).read_text()
        return {host: (script, {**clients["variables"], "HOST": host}) for host in clients["hosts"]}

    def _all(
        self, what: str, commands: Mapping[str, tuple[str, Mapping[str, str]]], seconds: float = STEP_SECONDS
    ) -> dict[str, Answer]:
        """Run a script on hosts at once; all have to succeed."""
        if not commands:
            return {}
        [script] = {script for script, _ in commands.values()}
        ssh = {host: self._props["ssh"][host] for host in commands}
        answers = ask(ssh, script, {host: variables for host, (_, variables) in commands.items()}, seconds)
        self._check(what, answers)
        return answers

    @staticmethod
    def _check(what: str, answers: Mapping[str, Answer]) -> None:
        failed = {host: answer.error or answer.text for host, answer in answers.items() if answer.status}
        if failed:
            reasons = "; ".join(f"{host}: {reason}" for host, reason in failed.items())
            raise HostError(f"etcd: the restore could not {what}: {reasons}; {NEXT}")


def ask_members(
    props: Mapping[str, Any], step: str, variables: Mapping[str, str] | None = None
) -> dict[str, Answer]:
    """Run a step of `restore.sh` on the hosts of all members at once."""
    members = props["members"]
    own = {
        name: {"STEP": step, "MEMBER": name, "ENDPOINT": member["client"], **(variables or {})}
        for name, member in members.items()
    }
    ssh = {name: props["ssh"][name] for name in members}
    return ask(ssh, _SCRIPT.read_text(), own, STEP_SECONDS)


def has_quorum(props: Mapping[str, Any]) -> bool:
    """Whether a member answers a read that a quorum has confirmed."""
    return any(answer.status == 0 for answer in ask_members(props, "quorum").values())


def pending(props: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of this restore, if it was interrupted after the data were in place.

    If the cluster has a quorum by now, the clients are what is left to start.
    """
    said = (answer.text for answer in ask_members(props, "pending").values() if not answer.status)
    records = (json.loads(text) for text in said if text)
    return next((record for record in records if record["asked"] == props["restore_from"]), None)


def refusal(props: Mapping[str, Any]) -> str:
    """Say why a cluster with a quorum is not restored."""
    return (
        f"etcd.restoreFrom: {props['restore_from']}: the cluster has a quorum, and a restore would throw "
        "away what it has written since the snapshot. Remove etcd.restoreFrom; or, to restore it all the "
        "same, set etcd.restoreDespiteQuorum: true. Nothing was changed"
    )


class _RestoreProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        if not is_known(news) or not differ(["restore_from"], olds, news):
            return dynamic.CheckResult(dict(news), [])
        quorum = has_quorum(news)
        if quorum and pending(news):
            tell(["etcd: a restore was interrupted; what is left of it is done"])
        elif quorum and not news["despite_quorum"]:
            return dynamic.CheckResult(dict(news), [dynamic.CheckFailure("restoreFrom", refusal(news))])
        else:
            tell(effects(news))
        return dynamic.CheckResult(dict(news), [])

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("restored", self._restore(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(["restore_from"], olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(self._restore(news))

    @staticmethod
    def _restore(props: Mapping[str, Any]) -> dict[str, Any]:
        with messages_without_traceback():
            record = _Restore(props).run()
        return {**props, "restored": f"{record['time']} {record['sha256']} {datetime.now(UTC).isoformat()}"}


class Restore(dynamic.Resource, module="calico-lab", name="EtcdRestore"):
    """A cluster that was restored from a snapshot."""

    restored: Output[str]
    """Changes with each restore."""

    def __init__(
        self,
        name: str,
        config: "EtcdConfig",
        hosts: Mapping[str, "Host"],
        clients: Clients,
        opts: ResourceOptions,
    ) -> None:
        """Restore the cluster if `restoreFrom` has another value than before.

        Args:
            name: The resource's name.
            config: The cluster's section.
            hosts: The lab's hosts.
            clients: The programs that watch the datastore.
            opts: More resource options.
        """
        members = {
            member: {
                "peer": peer_url(config, hosts[member].address),
                "client": client_url(config, hosts[member].address),
            }
            for member in config.members
        }
        path: Callable[[Path], str] = lambda script: str(script.relative_to(PROJECT))  # noqa: E731
        props: dict[str, Input[Any]] = {
            "restore_from": config.restore_from,
            "despite_quorum": config.restore_despite_quorum,
            "token": config.token,
            "members": members,
            # Former members too, which have theirs until the end of the update.
            "sources": [name for name, host in hosts.items() if not host.lost],
            "ssh": ssh_commands(list(hosts.values())),
            "clients": {
                "hosts": [host for host in clients.hosts if not hosts[host].lost],
                "variables": dict(clients.variables),
                **{step: path(getattr(clients, step)) for step in ("pause", "hold", "resume")},
            },
            "restored": None,
        }
        super().__init__(_RestoreProvider(), name, props, opts)
