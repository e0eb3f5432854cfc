"""The status as tables for people. Pure: from what was seen to what is printed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from components.shared.validity import RENEW_DAYS
from diagnosis.facts import HostFacts
from diagnosis.status import DISK_LEFT, MEMORY_LEFT, Finding, Status, ready, size
from lab.doctor import Checkup


def tables(
    status: Status, findings: Sequence[Finding], warnings: Sequence[Finding]
) -> Iterator[RenderableType]:
    """The tables of a status, and its warnings and findings last, where they are read."""
    outputs = status.outputs
    yield _table(
        f"Hosts of stack {status.stack}",
        ("host", "address", "release", "up", "free memory", "free disk", "certificates"),
        (
            (
                host,
                outputs.hosts.get(host, "outside the lab"),
                seen.release if seen.reached else _bad("does not answer"),
                str(timedelta(seconds=seen.uptime)) if seen.reached else "",
                _room(seen.memory, MEMORY_LEFT),
                _room(min((disk.free for disk in seen.disks), default=None), DISK_LEFT),
                _days(seen),
            )
            for host, seen in status.hosts.items()
        ),
    )
    yield _table(
        "etcd",
        ("host", "endpoint", "health", "role", "version", "database"),
        (
            (
                host,
                outputs.etcd_endpoint(host) or "",
                _good("healthy") if member and member.healthy else _bad("unhealthy"),
                "leader" if member and member.leader else "",
                member.version if member else "",
                f"{member.size // 1024} KiB" if member else "",
            )
            for host in status.members
            for member in [status.hosts[host].member]
        ),
    )
    yield _table(
        f"Calico network {outputs.network} {outputs.cidr}",
        ("host", "Felix", "driver", "BGP sessions"),
        (
            (
                host,
                _ready(status.hosts[host].felix),
                _ready(status.hosts[host].driver),
                Text(", ").join(
                    _good(peer) if session.established else _bad(f"{peer}: {session.state}")
                    for end, peer, session in status.sessions()
                    if end == host
                ),
            )
            for host in status.networked
        ),
    )
    yield _table(
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
            for host, seen in status.hosts.items()
            for container in seen.containers
            if container.address or container.stack
        ),
    )
    yield _table(
        "Firewall",
        ("host", "active policies", "rules"),
        (
            (host, ", ".join(outputs.firewall.get(host, ())) or "none", str(status.rules(host)))
            for host in outputs.hosts
        ),
    )
    yield _table(
        "URLs",
        ("what", "where", "answers"),
        (("notebook", outputs.notebook_url, str(status.notebook)), ("proxy", outputs.proxy_url, "")),
    )
    yield from _findings(findings, warnings, "Everything is as it has to be.")


def machines(
    seen: Checkup, findings: Sequence[Finding], warnings: Sequence[Finding]
) -> Iterator[RenderableType]:
    """What was seen of machines before an `up`, and what stands in its way."""
    if seen.machines:
        yield _table(
            "Machines",
            ("host", "address", "release", "CPUs", "free memory", "free disk", "lab"),
            (
                (
                    (host, machine.address, _bad("is no host for a lab"), "", "", "", "")
                    if machine.error
                    else (
                        host,
                        machine.address,
                        machine.release,
                        str(machine.cpus),
                        size(machine.memory),
                        size(machine.disk),
                        "on it" if machine.installed else "",
                    )
                )
                for host, machine in seen.machines.items()
            ),
        )
    certified = {host: there for host, there in seen.lab.items() if there.certificates}
    if certified:
        yield _table(
            "Certificates of the lab that is up",
            ("host", "the first ends"),
            ((host, _days(there)) for host, there in certified.items()),
        )
    yield from _findings(findings, warnings, "Nothing stands in the way of an `up`.")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _findings(findings: Sequence[Finding], warnings: Sequence[Finding], none: str) -> Iterator[Text]:
    if not findings:
        yield _good(none)
    for style, found in (("bold yellow", warnings), ("bold red", findings)):
        for finding in found:
            yield Text.assemble((finding.where, style), ": ", finding.what, "\n    next: ", finding.next)


def _room(free: int | None, least: int) -> Text:
    if free is None:
        return Text()
    return Text(size(free)) if free >= least else _soon(size(free))


def _days(seen: HostFacts) -> Text:
    """When the first of a host's certificates ends."""
    if not seen.certificates:
        return Text()
    days = min(certificate.days for certificate in seen.certificates)
    if days < 0:
        return _bad("ended")
    return Text(f"{days} days") if days >= RENEW_DAYS else _soon(f"{days} days")


def _image(name: str) -> str:
    """An image's name; an ID as short as Docker's own tables have it."""
    return name.removeprefix("sha256:")[:12] if name.startswith("sha256:") else name


def _ready(line: str | None) -> Text:
    return _good("ready") if ready(line) else _bad(line or "no answer")


def _good(text: str) -> Text:
    return Text(text, style="green")


def _soon(text: str) -> Text:
    return Text(text, style="yellow")


def _bad(text: str) -> Text:
    return Text(text, style="bold red")
