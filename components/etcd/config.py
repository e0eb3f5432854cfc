"""The `etcd` section of the config."""

import re
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field, field_validator

from components.shared.section import HostName, Section, UnprivilegedPort, Whole

HOST_FILE = re.compile(r"[a-z][a-z0-9-]*:/\S+")
"""A file on a host: `a0:/root/snapshot.db`."""


def _once(names: Sequence[str], what: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is named more than once; name each {what} once")


class SnapshotsConfig(Section):
    """The `etcd.snapshots` section: snapshots that hosts take of the cluster by a timer."""

    hosts: tuple[HostName, ...] | None = Field(
        None,
        description="The hosts that take and keep snapshots, members or not; without the key every member. "
        "With an empty list there are none.",
    )
    every_minutes: Whole = Field(
        60, ge=5, le=10_080, description="The time from one snapshot of a host to its next, in minutes."
    )
    keep: Whole = Field(
        24, ge=1, le=10_000, description="The snapshots that stay on a host, the newest ones."
    )
    keep_on_destroy: bool = Field(
        False,
        description="Whether the snapshots stay on their hosts, in /var/lib/calico-lab-snapshots, when the "
        "lab is destroyed or the host leaves it. Those on host containers go with the containers.",
    )

    @field_validator("hosts")
    @classmethod
    def _hosts_differ(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        _once(hosts or (), "host")
        return hosts


class EtcdConfig(Section):
    """The `etcd` section of the config."""

    members: tuple[HostName, ...] = Field(
        ("a0", "a1", "a2"),
        min_length=1,
        max_length=7,
        description="The hosts that are members; an odd number of them. Another list changes the running "
        "cluster one member at a time (docs/etcd.md).",
    )
    token: str = Field(
        "etcd-cluster-1",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Keeps clusters apart that are bootstrapped side by side; no secret.",
    )
    peer_port: UnprivilegedPort = Field(2380, description="Where members talk to each other.")
    client_port: UnprivilegedPort = Field(2379, description="Where clients talk to a member.")
    quota: Whole = Field(
        2048,
        ge=16,
        le=8192,
        description="The most that a member's database may grow to, in MiB. When it is full, etcd refuses to "
        "write (the alarm NOSPACE).",
    )
    snapshots: SnapshotsConfig = Field(
        default_factory=lambda: SnapshotsConfig.model_validate({}),
        description="Snapshots of the cluster, each verified by a trial restore.",
    )

    restore_from: str = Field(
        "",
        description="Rebuilds a cluster that has lost its quorum from a snapshot, once for each new value: "
        "`latest`, a UTC time such as `2026-11-28T12:00:00Z` (the last snapshot by then), or `HOST:/path`, a "
        "file on a host. docs/etcd.md.",
    )
    restore_despite_quorum: bool = Field(
        False,
        description="Whether `restoreFrom` restores a cluster with a quorum too. What it has written since "
        "the snapshot is lost.",
    )

    @field_validator("members")
    @classmethod
    def _members_differ(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        _once(members, "member")
        return members

    @field_validator("restore_from")
    @classmethod
    def _is_a_snapshot(cls, value: str) -> str:
        if value in ("", "latest") or HOST_FILE.fullmatch(value):
            return value
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                "must be 'latest', a time such as 2026-11-28T12:00:00Z, or a file on a host such as "
                "a0:/root/snapshot.db"
            ) from None
        return value

    @property
    def restore_host(self) -> str:
        """The host that has the file from which is restored; empty without a file."""
        return self.restore_from.partition(":/")[0] if HOST_FILE.fullmatch(self.restore_from) else ""

    @property
    def snapshot_hosts(self) -> tuple[str, ...]:
        """The hosts that take snapshots."""
        return self.members if self.snapshots.hosts is None else self.snapshots.hosts

    def warnings(self) -> list[str]:
        """What is allowed and yet better done otherwise."""
        count = len(self.members)
        if count % 2:
            return []
        return [
            f"etcd.members: a quorum of {count} members survives the loss of {(count - 1) // 2}, "
            f"as one of {count - 1} does; take an odd number"
        ]
