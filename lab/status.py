"""`lab status`: the lab's health as tables or JSON."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from diagnosis import status as lab_status
from diagnosis.capacity import MIN_DISK, MIN_MEMORY, gib
from diagnosis.facts import Snapshots
from diagnosis.finding import Finding
from diagnosis.snapshots import limit
from diagnosis.status import Status
from lab.tables import bad, certificates, days_left, found, good, table, warning
from lab.verb import json_option, print_json, print_tables, read_outputs


@click.command("status")
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show hosts, etcd, BGP, containers, firewall and URLs; exit 1 when something is wrong.

    It warns of certificates that end within 60 days, and of less than 1 GiB of free disk or 256 MiB of free
    memory on a host, and says what to do; with warnings alone the exit code is 0.
    """
    seen = lab_status.look(read_outputs(context.obj), context.obj)
    findings = lab_status.findings(seen)
    if as_json:
        print_json(document(seen))
    else:
        print_tables(tables(seen, findings, lab_status.warnings(seen)))
    context.exit(1 if findings else 0)


def tables(
    status: Status, findings: Sequence[Finding], warnings: Sequence[Finding]
) -> Iterator[RenderableType]:
    """Return the tables, and last the warnings and findings, because the last lines are read first."""
    outputs = status.outputs
    yield table(
        f"Hosts of stack {status.stack}",
        ("host", "address", "release", "up", "free memory", "free disk", "certificates"),
        (
            (
                host,
                outputs.hosts.get(host, "outside the lab"),
                facts.release if facts.reached else bad("does not answer"),
                str(timedelta(seconds=facts.uptime)) if facts.reached else "",
                _free(facts.memory, MIN_MEMORY),
                _free(min((disk.free for disk in facts.disks), default=None), MIN_DISK),
                days_left(facts),
            )
            for host, facts in status.hosts.items()
        ),
    )
    yield table(
        "etcd",
        ("host", "endpoint", "health", "role", "version", "database"),
        (
            (
                host,
                outputs.etcd_endpoint(host) or "",
                good("healthy") if member and member.healthy else bad("unhealthy"),
                "leader" if member and member.leader else "",
                member.version if member else "",
                f"{member.size // 1024} KiB" if member else "",
            )
            for host in status.members
            for member in [status.hosts[host].member]
        ),
    )
    yield table(
        "Snapshots of etcd",
        ("host", "last good", "keys", "revision", "kept"),
        (
            (
                host,
                _age(snapshots),
                str(snapshots.keys) if snapshots.time else "",
                str(snapshots.revision) if snapshots.time else "",
                str(snapshots.count),
            )
            for host, facts in status.hosts.items()
            for snapshots in [facts.snapshots]
            if snapshots
        ),
    )
    yield table(
        f"Calico network {outputs.network} {outputs.cidr}",
        ("host", "Felix", "driver", "BGP sessions"),
        (
            (
                host,
                _ready(facts.felix_ready, facts.felix),
                _ready(facts.driver_ready, facts.driver),
                Text(", ").join(
                    good(peer) if session.established else bad(f"{peer}: {session.state}")
                    for end, peer, session in status.sessions()
                    if end == host
                ),
            )
            for host in status.networked
            for facts in [status.hosts[host]]
        ),
    )
    yield table(
        "Containers",
        ("host", "container", "address", "image", "state"),
        (
            (
                host,
                container.name,
                container.address or "host's own",
                _image(container.image),
                container.condition,
            )
            for host, facts in status.hosts.items()
            for container in facts.containers
            if container.address or container.stack
        ),
    )
    yield table(
        "Firewall",
        ("host", "active policies", "rules"),
        (
            (host, ", ".join(outputs.firewall.get(host, ())) or "none", str(status.rules(host)))
            for host in outputs.hosts
        ),
    )
    yield table(
        "URLs",
        ("what", "where", "answers"),
        (
            ("notebook", outputs.notebook_url, str(status.notebook)),
            *(("proxy", url, "") for url in outputs.proxy_urls),
        ),
    )
    yield from found(findings, warnings, "Everything is as it has to be.")


def document(status: Status) -> dict[str, Any]:
    """Return the status for programs; its keys are a contract."""
    outputs = status.outputs
    findings = lab_status.findings(status)
    return {
        "stack": status.stack,
        "healthy": not findings,
        "findings": [vars(finding) for finding in findings],
        "warnings": [vars(one) for one in lab_status.warnings(status)],
        "hosts": [
            {
                "name": host,
                "address": outputs.hosts.get(host),
                "member": host in outputs.hosts,
                "reachable": facts.reached,
                "release": facts.release,
                "uptimeSeconds": facts.uptime,
                "memoryBytes": facts.memory,
                "disks": [
                    {"path": disk.path, "freeBytes": disk.free, "sizeBytes": disk.size}
                    for disk in facts.disks
                ],
                "certificates": certificates(facts),
            }
            for host, facts in status.hosts.items()
        ],
        "etcd": [
            {
                "host": host,
                "endpoint": outputs.etcd_endpoint(host),
                "healthy": member is not None and member.healthy,
                "leader": member is not None and member.leader,
                "version": member.version if member else "",
                "databaseBytes": member.size if member else 0,
            }
            for host in status.members
            for member in [status.hosts[host].member]
        ],
        "alarms": [
            {"member": alarm.member, "alarm": alarm.kind}
            for alarm in sorted({alarm for facts in status.hosts.values() for alarm in facts.alarms})
        ],
        "snapshots": [
            {
                "host": host,
                "time": snapshots.time.isoformat() if snapshots.time else None,
                "ageSeconds": snapshots.age if snapshots.time else None,
                "keys": snapshots.keys,
                "revision": snapshots.revision,
                "count": snapshots.count,
                "damaged": snapshots.damaged,
                "error": snapshots.error or None,
            }
            for host, facts in status.hosts.items()
            for snapshots in [facts.snapshots]
            if snapshots
        ],
        "calico": [
            {
                "host": host,
                "felixReady": facts.felix_ready,
                "driverReady": facts.driver_ready,
                "network": facts.network == "calico",
            }
            for host in status.networked
            for facts in [status.hosts[host]]
        ],
        "bgp": [
            {"host": host, "peer": peer, "state": session.state, "since": session.since}
            for host, peer, session in status.sessions()
        ],
        "containers": [
            {
                "host": host,
                "name": container.name,
                "address": container.address,
                "image": container.image,
                "state": container.state,
                "health": container.health,
                "stack": container.stack,
            }
            for host, facts in status.hosts.items()
            for container in facts.containers
        ],
        "firewall": [
            {"host": host, "policies": list(outputs.firewall.get(host, ())), "rules": status.rules(host)}
            for host in outputs.hosts
        ],
        "urls": {
            "notebook": outputs.notebook_url,
            "proxy": outputs.proxy_url,
            "notebookStatus": status.notebook.status,
        },
    }


def _age(snapshots: Snapshots) -> Text:
    if not snapshots.time:
        return Text("none yet") if snapshots.age <= limit(snapshots) else bad("none")
    age = f"{timedelta(seconds=snapshots.age)} ago"
    return Text(age) if snapshots.age <= limit(snapshots) else bad(age)


def _free(free: int | None, least: int) -> Text:
    if free is None:
        return Text()
    return Text(gib(free)) if free >= least else warning(gib(free))


def _image(name: str) -> str:
    """An image's name; an ID as short as `docker images` prints it."""
    return name.removeprefix("sha256:")[:12] if name.startswith("sha256:") else name


def _ready(ready: bool, line: str | None) -> Text:
    return good("ready") if ready else bad(line or "no answer")
