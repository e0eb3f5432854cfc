"""Snapshots of etcd: the files of a host that takes them, and their order in time. Pure.

A host takes a snapshot over mutual TLS from a member, its own if it has one, restores it for trial, and
compares the restored keys with the cluster's (`scripts/calico-lab-snapshot`). Only then is it counted. So a
snapshot needs no connection between hosts that the cluster has not anyway, and there are as many copies as
hosts that take them.
"""

from collections.abc import Sequence
from pathlib import Path

from components.etcd.config import EtcdConfig, SnapshotsConfig

_SCRIPTS = Path(__file__).with_name("scripts")
_UNITS = Path(__file__).with_name("units")
PROGRAM_FILE = "/usr/local/bin/calico-lab-snapshot"
SETTINGS_FILE = "/etc/calico-lab/etcd/snapshots.env"
TIMER = "calico-lab-snapshot.timer"
SERVICE = "calico-lab-snapshot.service"
PACKAGES = ["iproute2", "jq"]
"""What a trial needs, and a record, in addition to etcd and etcdctl."""
CLIENT_NAME = "calico-lab-snapshots"
"""Common name of the certificate of a host that takes snapshots and is no member."""
FIRST_SECONDS = 60
"""From the start of the timer to the first snapshot, on the first host; half as much more on each next."""


def files(config: EtcdConfig, host: str, urls: Sequence[str], own: str = "") -> dict[str, str]:
    """Returns the files of a host that takes snapshots, by path, for `Host.install`; none if it takes none.

    Args:
        config: The cluster's section.
        host: The host.
        urls: The client URL of each member.
        own: That of the host's own member, which is asked first.
    """
    hosts = config.snapshot_hosts
    if host not in hosts:
        return {}
    return {
        PROGRAM_FILE: (_SCRIPTS / "calico-lab-snapshot").read_text(),
        SETTINGS_FILE: render_settings(config.snapshots, host, sorted(urls, key=lambda url: url != own)),
        f"/etc/systemd/system/{SERVICE}": (_UNITS / SERVICE).read_text(),
        f"/etc/systemd/system/{TIMER}": render_timer(config.snapshots, hosts.index(host), len(hosts)),
    }


def variables(config: EtcdConfig, host: str, other: str) -> dict[str, str]:
    """Returns the variables of `snapshots.sh` and `remove-snapshots.sh`.

    Args:
        config: The cluster's section.
        host: The host.
        other: The component that has the host's snapshots if this one does not.
    """
    return {
        "SNAPSHOTS": "yes" if host in config.snapshot_hosts else "",
        "KEEP_SNAPSHOTS": "yes" if config.snapshots.keep_on_destroy else "",
        "OTHER": other,
    }


def render_settings(config: SnapshotsConfig, host: str, urls: Sequence[str]) -> str:
    """Render what `calico-lab-snapshot` reads.

    Args:
        config: The section.
        host: The host.
        urls: The client URLs of the members, in the order in which they are asked.
    """
    return f"""\
HOST={host}
KEEP={config.keep}
EVERY_MINUTES={config.every_minutes}
SNAPSHOT_ENDPOINTS="{" ".join(urls)}"
"""


def render_timer(config: SnapshotsConfig, index: int, count: int) -> str:
    """Render the timer of a host. The hosts take turns: their second snapshots are spread over the interval.

    Args:
        config: The section.
        index: The host's place among those that take snapshots.
        count: How many hosts do.
    """
    first = FIRST_SECONDS + index * FIRST_SECONDS // 2
    # Both count from the start of the timer. After the second, a snapshot comes an interval after the last.
    second = FIRST_SECONDS + index * config.every_minutes * 60 // count
    turn = f"OnActiveSec={second}s\n" if second > first else ""
    return f"""\
[Unit]
Description=Calico Lab: snapshots of etcd

[Timer]
OnActiveSec={first}s
{turn}OnUnitActiveSec={config.every_minutes}min
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
