"""Judges the lab: from the facts of all hosts to findings, each with where, what, and the next thing to do.

Pure, but for `look`, which asks. Whatever is expected and not seen is a finding; a lab without one is
healthy. What is well now and will not be for long is a warning: a certificate that ends, a disk or a memory
that is nearly full.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.calico.flows import peers_of
from components.hosts import remote
from components.shared.validity import RENEW_DAYS
from diagnosis import facts, web
from diagnosis.facts import Certificate, Container, FileSystem, HostFacts, Session
from workspace.outputs import Outputs

PROBE = Path(__file__).with_name("scripts") / "status.sh"
CHAINS = ("CALICO-LAB-INPUT", "CALICO-LAB-PUBLISHED")
UNKNOWN_SESSION = Session("BIRD has no such session")
KERNEL = Path("/proc/sys/kernel/random/boot_id")
CONTROLLER = "this machine"
GIB = 1 << 30
DISK_LEFT = 1 * GIB
"""Bytes. etcd keeps up to five files of 64 MB of its log, and copies its database into snapshots; an image
that an update brings lies there twice for a moment; the rest is for what notebooks save."""
MEMORY_LEFT = GIB // 4
"""Bytes. A kernel of a notebook takes about as much when it starts, and where there is none left, Linux ends
a program of its own choice."""
MAKE_ROOM = "make room there: docker system df, apt-get clean"
MORE_MEMORY = "give the machine more, or end what else runs there"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be."""

    where: str
    what: str
    next: str


@dataclass(frozen=True)
class Status:
    """Everything that was seen of a lab at one moment."""

    stack: str
    outputs: Outputs
    hosts: Mapping[str, HostFacts]
    """The facts by machine, the visitor included."""
    notebook: web.WebAnswer
    """The notebook's version page, which everyone may see."""
    kernels: web.WebAnswer
    """The notebook's list of kernels, asked without a token."""
    kernel: str
    """Identity of the controller's running kernel."""

    @property
    def up(self) -> str:
        """The command that makes the lab what the stack says."""
        return f"pulumi up --stack {self.stack}"

    @property
    def members(self) -> list[str]:
        """The hosts that have to be etcd members."""
        return [host for host in self.outputs.hosts if self.outputs.etcd_endpoint(host)]

    @property
    def networked(self) -> list[str]:
        """The hosts that have Calico."""
        return [host for host in self.outputs.hosts if self.hosts[host].on_network]

    def sessions(self) -> Iterator[tuple[str, str, Session]]:
        """Each BGP session that has to be, seen from each of its ends: host, peer, session."""
        for host in self.networked:
            sessions = self.hosts[host].sessions
            for peer in peers_of(host, list(self.outputs.hosts), self.outputs.route_reflectors):
                address = self.outputs.hosts[peer]
                # A host that did not answer, or that has lost Calico, still has to be heard by the others.
                expected = peer in self.networked or not self.hosts[peer].reached or address in sessions
                if expected:
                    yield host, peer, sessions.get(address, UNKNOWN_SESSION)

    def rules(self, host: str) -> int:
        """How many rules of the firewall's own a host has, in all families and chains."""
        return sum(self.hosts[host].rules.values())


def look(outputs: Outputs, stack: str) -> Status:
    """Ask all machines and the notebook, at the same time."""
    with ThreadPoolExecutor() as pool:
        notebook = pool.submit(web.get, outputs.notebook_api)
        kernels = pool.submit(web.get, f"{outputs.notebook_api}/kernels")
        hosts = ask(outputs)
        kernel = KERNEL.read_text().strip()
        return Status(stack, outputs, hosts, notebook.result(), kernels.result(), kernel)


def ask(outputs: Outputs) -> dict[str, HostFacts]:
    """Ask all machines, at the same time."""
    variables = {
        host: {"NETWORK": outputs.network, "ENDPOINT": outputs.etcd_endpoint(host) or ""}
        for host in outputs.hosts
    }
    others = {machine: {"NETWORK": outputs.network, "ENDPOINT": ""} for machine in outputs.ssh}
    answers = remote.ask(outputs.ssh, PROBE.read_text(), {**others, **variables})
    return {host: facts.parse(answer, outputs.network) for host, answer in answers.items()}


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB"


def findings(status: Status) -> list[Finding]:
    """Everything that is not as it has to be, the most basic first."""
    return [
        *_hosts(status),
        *ended_certificates(status.hosts, status.up),
        *_units(status),
        *_etcd(status),
        *_calico(status),
        *_containers(status),
        *_firewall(status),
        *_notebook(status),
    ]


def warnings(status: Status) -> list[Finding]:
    """What is going to be a finding unless something is done."""
    return [*ending_certificates(status.hosts, status.up), *_rooms(status)]


def ended_certificates(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """The hosts with certificates that nothing accepts any more, and that `up`, a command, renews."""
    for host, seen in hosts.items():
        if ended := [one for one in seen.certificates if one.days < 0]:
            yield Finding(host, f"certificates have ended: {_list(ended)}", up)


def ending_certificates(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """The hosts with certificates that end so soon that `up`, a command, renews them."""
    for host, seen in hosts.items():
        if ending := [one for one in seen.certificates if 0 <= one.days < RENEW_DAYS]:
            yield Finding(host, f"certificates end soon: {_list(ending)}", up)


def _list(certificates: Sequence[Certificate]) -> str:
    return ", ".join(
        f"{one.file} {f'in {one.days} days' if one.days >= 0 else f'on {one.ends:%Y-%m-%d}'}"
        for one in sorted(certificates, key=lambda one: (one.ends, one.file))
    )


def _rooms(status: Status) -> Iterator[Finding]:
    """What is nearly full, once where several hosts share it."""
    kernels: dict[str, list[str]] = defaultdict(list)
    for host in status.outputs.hosts:
        kernels[status.hosts[host].kernel or host].append(host)
    for kernel, hosts in kernels.items():
        where = ", ".join(hosts)
        if kernel == status.kernel:
            where = f"{CONTROLLER}, with {where}"
        seen = [status.hosts[host] for host in hosts]
        full: dict[int, list[FileSystem]] = defaultdict(list)
        # One kernel has the file systems of all its containers, and shows each of them the same sizes.
        for disk in (disk for one in seen for disk in one.disks if disk.free < DISK_LEFT):
            full[disk.size].append(disk)
        for whole, disks in full.items():
            paths = ", ".join(sorted({disk.path for disk in disks}))
            free = size(min(disk.free for disk in disks))
            what = f"{free} of {size(whole)} are free in {paths}: etcd and notebooks stop when it is full"
            yield Finding(where, what, MAKE_ROOM)
        memory = min((one.memory for one in seen if one.memory is not None), default=MEMORY_LEFT)
        if memory < MEMORY_LEFT:
            what = f"{size(memory)} of memory are free: Linux ends programs when there is none"
            yield Finding(where, what, MORE_MEMORY)


def _hosts(status: Status) -> Iterator[Finding]:
    for host, seen in status.hosts.items():
        ssh = status.outputs.ssh[host]
        if not seen.reached:
            yield Finding(host, f"does not answer SSH: {seen.error}", f"is it running? then: {ssh} uptime")
        elif not seen.complete:
            yield Finding(host, f"broke off what it was saying: {seen.error or 'no reason given'}", ssh)


def _units(status: Status) -> Iterator[Finding]:
    for host, seen in status.hosts.items():
        for unit, state in seen.units.items():
            if state != "active":
                yield Finding(
                    host, f"{unit} is {state}", f"{status.outputs.ssh[host]} journalctl -n 20 -u {unit}"
                )


def _etcd(status: Status) -> Iterator[Finding]:
    for host in status.members:
        seen = status.hosts[host]
        journal = f"{status.outputs.ssh[host]} journalctl -n 20 -u calico-lab-etcd"
        if not seen.reached:
            continue
        if seen.member is None:
            yield Finding(host, "its etcd member is not installed", status.up)
        elif not seen.member.healthy:
            yield Finding(host, f"its etcd member is not healthy: {seen.member.error}", journal)
        elif missing := sorted(set(status.members) - set(seen.member.members)):
            yield Finding(
                host,
                f"its etcd member does not know {', '.join(missing)}",
                status.up,
            )


def ready(line: str | None) -> bool:
    """Whether a program is ready, by the status line that it answered with, or None."""
    return line is not None and " 200 " in f"{line} "


def _calico(status: Status) -> Iterator[Finding]:
    if not status.networked and any(seen.complete for seen in status.hosts.values()):
        yield Finding(status.outputs.network, "no host has Calico", status.up)
    for host in status.networked:
        seen = status.hosts[host]
        ssh = status.outputs.ssh[host]
        for program, unit, line in (
            ("Felix", "calico-lab-felix", seen.felix),
            ("the Docker driver", "calico-lab-docker-driver", seen.driver),
        ):
            if not ready(line):
                yield Finding(
                    host,
                    f"{program} is not ready: {line or 'no answer'}",
                    f"{ssh} journalctl -n 20 -u {unit}",
                )
        if seen.network != "calico":
            what = f"is of driver {seen.network}, not calico" if seen.network else "is not there"
            yield Finding(
                host,
                f"the Docker network {status.outputs.network} {what}",
                status.up,
            )
    for host, peer, session in status.sessions():
        if not session.established:
            yield Finding(
                host,
                f"no BGP session with {peer} ({status.outputs.hosts[peer]}): {session.state}",
                f"on {host} and on {peer}: systemctl status calico-lab-bird; iptables -S INPUT",
            )


def container_is_well(container: Container) -> bool:
    """Whether nothing is to be done about it."""
    # "starting" is the health of one that has just been started, and ends by itself.
    return container.condition in ("running", "healthy", "starting")


def _containers(status: Status) -> Iterator[Finding]:
    for host, seen in status.hosts.items():
        for container in seen.containers:
            if container.stack is not None and not container_is_well(container):
                yield Finding(
                    host,
                    f"container {container.name} is {container.condition}",
                    f"{status.outputs.ssh[host]} docker logs --tail 20 {container.name}",
                )


def _firewall(status: Status) -> Iterator[Finding]:
    for host in status.outputs.hosts:
        seen = status.hosts[host]
        if not seen.complete:
            continue
        up = f"{status.up} --refresh"
        policies = status.outputs.firewall.get(host, ())
        if policies and not status.rules(host):
            yield Finding(host, f"has none of the rules of its policies: {', '.join(policies)}", up)
        elif status.rules(host) and not policies:
            yield Finding(host, "has firewall rules of the lab, though no policy is active", up)
        else:
            yield from _lost_rules(status, host)
        if seen.pending:
            yield Finding(
                host,
                "a change of its firewall is not confirmed yet, and will be undone",
                "wait for the undo, then: " + up,
            )


def _lost_rules(status: Status, host: str) -> Iterator[Finding]:
    seen = status.hosts[host]
    for chain, loaded in seen.loaded.items():
        if seen.rules[chain] != loaded:
            yield Finding(
                host,
                f"has {seen.rules[chain]} rules in {chain}, where {loaded} were loaded",
                f"lab --stack {status.stack} drift, then {status.up} --refresh",
            )


def _notebook(status: Status) -> Iterator[Finding]:
    url = status.outputs.notebook_url
    next_step = "the proxy's and the notebook's containers: docker logs --tail 20 on their hosts"
    if status.notebook.status != 200:
        yield Finding("notebook", f"{url} does not answer: {status.notebook}", next_step)
    elif status.kernels.status == 200:
        yield Finding("notebook", f"{url} answers without a token", status.up)
    elif status.kernels.status != 403:
        what = f"{url} does not answer when it is asked for its kernels: {status.kernels}"
        yield Finding("notebook", what, next_step)


def certificates(seen: HostFacts) -> list[dict[str, Any]]:
    """The certificates on a host for machines."""
    return [
        {"file": one.file, "ends": one.ends.isoformat(), "daysLeft": one.days} for one in seen.certificates
    ]


def document(status: Status) -> dict[str, Any]:
    """The whole status for machines; its keys are a contract."""
    outputs = status.outputs
    found = findings(status)
    return {
        "stack": status.stack,
        "healthy": not found,
        "findings": [vars(finding) for finding in found],
        "warnings": [vars(warning) for warning in warnings(status)],
        "hosts": [
            {
                "name": host,
                "address": outputs.hosts.get(host),
                "member": host in outputs.hosts,
                "reachable": seen.reached,
                "release": seen.release,
                "uptimeSeconds": seen.uptime,
                "memoryBytes": seen.memory,
                "disks": [
                    {"path": disk.path, "freeBytes": disk.free, "sizeBytes": disk.size} for disk in seen.disks
                ],
                "certificates": certificates(seen),
            }
            for host, seen in status.hosts.items()
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
        "calico": [
            {
                "host": host,
                "felixReady": ready(status.hosts[host].felix),
                "driverReady": ready(status.hosts[host].driver),
                "network": status.hosts[host].network == "calico",
            }
            for host in status.networked
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
            for host, seen in status.hosts.items()
            for container in seen.containers
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
