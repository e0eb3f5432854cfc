"""What keeps the data of etcd safe: alarms of its members, and the age of its snapshots."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from diagnosis.facts import Alarm, HostFacts, Snapshots
from diagnosis.finding import Finding
from diagnosis.members import REJOIN

MARGIN_SECONDS = 600
"""A snapshot may be late by one interval and this."""
_ALARMS = {
    "NOSPACE": (
        "its database has reached etcd.quota, and etcd refuses to write (alarm NOSPACE)",
        "on {member}: etcdctl defrag --cluster; etcdctl alarm disarm; then a higher etcd.quota and '{up}'",
    ),
    "CORRUPT": (
        "its data differ from those of the other members, and etcd refuses to write (alarm CORRUPT)",
        "on {member}: systemctl stop calico-lab-etcd; etcdctl alarm disarm; "
        f"rm -r /var/lib/calico-lab/etcd/member; then {REJOIN}",
    ),
}


def alarms(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """Find alarms of etcd; each once, whichever members know it.

    Args:
        hosts: Facts by host.
        up: The command that applies the stack.
    """
    for alarm in sorted({alarm for seen in hosts.values() for alarm in seen.alarms}):
        yield _alarm(alarm, up)


def _alarm(alarm: Alarm, up: str) -> Finding:
    what, then = _ALARMS.get(alarm.kind, (f"etcd has raised {alarm.kind}", "on {member}: etcdctl alarm list"))
    return Finding(alarm.member, what, then.format(member=alarm.member, up=up))


def quorum(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """Find that the cluster has no quorum: then no member is healthy.

    Args:
        hosts: Facts by host.
        up: The command that applies the stack.
    """
    present = {host: seen.member for host, seen in hosts.items() if seen.member}
    if not present or any(member.healthy for member in present.values()):
        return
    if any(seen.alarms for seen in hosts.values()):
        return
    times = [seen.snapshots.time for seen in hosts.values() if seen.snapshots and seen.snapshots.time]
    last = f"the newest snapshot is of {max(times):%Y-%m-%dT%H:%M:%SZ}: " if times else ""
    yield Finding(
        "etcd",
        f"has no quorum: none of the members on {', '.join(present)} is healthy",
        "start the members that are stopped. If the data of the majority are lost, "
        f"{last}set etcd.restoreFrom: latest and run '{up}'",
    )


def limit(snapshots: Snapshots) -> int:
    """Returns the age in seconds from which on the last good snapshot is too old."""
    return 2 * 60 * snapshots.every_minutes + MARGIN_SECONDS


def old(hosts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Find hosts whose last good snapshot is too old."""
    for host, seen in hosts.items():
        if seen.snapshots and seen.snapshots.age > limit(seen.snapshots):
            yield Finding(host, _age(seen.snapshots), _next(host))


def failed(hosts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Find failed attempts and damaged snapshots, on hosts whose last good one is young enough."""
    for host, seen in hosts.items():
        snapshots = seen.snapshots
        if not snapshots or snapshots.age > limit(snapshots):
            continue
        if snapshots.error:
            yield Finding(host, f"its last snapshot of etcd has failed: {snapshots.error}", _next(host))
        if snapshots.damaged:
            yield Finding(
                host,
                f"{snapshots.damaged} of its snapshots of etcd are damaged, and not counted",
                _next(host),
            )


def _age(snapshots: Snapshots) -> str:
    age = timedelta(seconds=snapshots.age)
    subject = (
        f"its last good snapshot of etcd is {age} old" if snapshots.time else f"has no snapshot after {age}"
    )
    cause = f": {snapshots.error}" if snapshots.error else ""
    return f"{subject}, where one is due every {snapshots.every_minutes} min{cause}"


def _next(host: str) -> str:
    unit = "calico-lab-snapshot"
    return f"on {host}: systemctl start {unit}; if it fails: journalctl -n 20 -u {unit}"
