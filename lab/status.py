"""Judges the lab: from the facts of all hosts to findings, each with where, what, and the next thing to do.

Pure, but for `look`, which asks. Whatever is expected and not seen is a finding; a lab without one is
healthy.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.calico import peers_of
from lab import facts, remote, web
from lab.facts import Container, HostFacts, Session
from lab.stack import Outputs

PROBE = Path(__file__).with_name("probe.sh")
CHAINS = ("CALICO-LAB-INPUT", "CALICO-LAB-PUBLISHED")
UNKNOWN_SESSION = Session("BIRD has no such session")


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
    variables = {
        host: {"NETWORK": outputs.network, "ENDPOINT": outputs.etcd_endpoint(host) or ""}
        for host in outputs.hosts
    }
    others = {machine: {"NETWORK": outputs.network, "ENDPOINT": ""} for machine in outputs.ssh}
    with ThreadPoolExecutor() as pool:
        notebook = pool.submit(web.get, outputs.notebook_api)
        kernels = pool.submit(web.get, f"{outputs.notebook_api}/kernels")
        answers = remote.ask(outputs.ssh, PROBE.read_text(), {**others, **variables})
        hosts = {host: facts.parse(answer, outputs.network) for host, answer in answers.items()}
        return Status(stack, outputs, hosts, notebook.result(), kernels.result())


def findings(status: Status) -> list[Finding]:
    """Everything that is not as it has to be, the most basic first."""
    return [
        *_hosts(status),
        *_units(status),
        *_etcd(status),
        *_calico(status),
        *_containers(status),
        *_firewall(status),
        *_notebook(status),
    ]


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


def document(status: Status) -> dict[str, Any]:
    """The whole status for machines; its keys are a contract."""
    outputs = status.outputs
    found = findings(status)
    return {
        "stack": status.stack,
        "healthy": not found,
        "findings": [vars(finding) for finding in found],
        "hosts": [
            {
                "name": host,
                "address": outputs.hosts.get(host),
                "member": host in outputs.hosts,
                "reachable": seen.reached,
                "release": seen.release,
                "uptimeSeconds": seen.uptime,
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
