"""Status of a lab: the facts from all hosts, and the findings.

Everything that is expected and missing is a finding; a lab without findings is healthy. A warning is about
something that works and will fail soon: a certificate that expires, a disk or memory that is nearly full.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from components.calico.flows import peers_of
from components.hosts import remote
from diagnosis import capacity, certificates, facts, members, snapshots, web
from diagnosis.facts import HostFacts, Session
from diagnosis.finding import Finding
from workspace.outputs import Outputs

STATUS_SCRIPT = Path(__file__).with_name("scripts") / "status.sh"
UNKNOWN_SESSION = Session("BIRD has no such session")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Status:
    """The state of a lab at one moment."""

    stack: str
    outputs: Outputs
    hosts: Mapping[str, HostFacts]
    """Facts by host, the visitor included."""
    notebook: web.WebAnswer
    """Answer of the notebook's version page, which needs no token."""
    kernels: web.WebAnswer
    """Answer of the notebook's list of kernels to a request without a token."""
    controller_kernel: str
    """Boot ID of the controller's kernel."""
    causes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Why etcd members are not healthy, and the next step, by host."""

    @property
    def up(self) -> str:
        """The command that applies the stack."""
        return f"pulumi up --stack {self.stack}"

    @property
    def members(self) -> list[str]:
        """The hosts that should be etcd members."""
        return [host for host in self.outputs.hosts if self.outputs.etcd_endpoint(host)]

    @property
    def networked(self) -> list[str]:
        """The hosts on which Calico is installed."""
        return [host for host in self.outputs.hosts if self.hosts[host].on_network]

    def sessions(self) -> Iterator[tuple[str, str, Session]]:
        """Each expected BGP session, once for each of its two hosts: host, peer, session."""
        for host in self.networked:
            sessions = self.hosts[host].sessions
            for peer in peers_of(host, list(self.outputs.hosts), self.outputs.route_reflectors):
                address = self.outputs.hosts[peer]
                # A session is expected too with a host that does not answer or that has lost Calico.
                expected = peer in self.networked or not self.hosts[peer].reached or address in sessions
                if expected:
                    yield host, peer, sessions.get(address, UNKNOWN_SESSION)

    def rules(self, host: str) -> int:
        """Number of rules in the lab's chains on a host, both address families together."""
        return sum(self.hosts[host].rules.values())


def look(outputs: Outputs, stack: str) -> Status:
    """Ask all hosts and the notebook, in parallel."""
    with ThreadPoolExecutor() as pool:
        notebook = pool.submit(web.get, outputs.notebook_api, outputs.proxy_authority)
        kernels = pool.submit(web.get, f"{outputs.notebook_api}/kernels", outputs.proxy_authority)
        hosts = ask(outputs)
        kernel = _BOOT_ID.read_text().strip()
        status = Status(stack, outputs, hosts, notebook.result(), kernels.result(), kernel)
    known = {host: hosts[host].member for host in status.members}
    unhealthy = {host: member.error for host, member in known.items() if member and not member.healthy}
    return replace(status, causes=members.causes(unhealthy, outputs, status.up)) if unhealthy else status


def ask(outputs: Outputs) -> dict[str, HostFacts]:
    """Ask all hosts, in parallel."""
    variables = {
        host: {"NETWORK": outputs.network, "ENDPOINT": outputs.etcd_endpoint(host) or ""}
        for host in outputs.hosts
    }
    others = {host: {"NETWORK": outputs.network, "ENDPOINT": ""} for host in outputs.ssh}
    answers = remote.ask(outputs.ssh, STATUS_SCRIPT.read_text(), {**others, **variables})
    return {host: facts.parse(answer, outputs.network) for host, answer in answers.items()}


def findings(status: Status) -> list[Finding]:
    """Everything that is wrong, basic things first."""
    return [
        *_hosts(status),
        *certificates.expired(status.hosts, status.up),
        *_units(status),
        *snapshots.quorum(status.hosts, status.up),
        *_etcd(status),
        *snapshots.alarms(status.hosts, status.up),
        *snapshots.old(status.hosts),
        *_calico(status),
        *_containers(status),
        *_firewall(status),
        *_notebook(status),
    ]


def warnings(status: Status) -> list[Finding]:
    """What becomes a finding if nothing is done."""
    members = {host: status.hosts[host] for host in status.outputs.hosts}
    return [
        *certificates.expiring(status.hosts, status.up),
        *snapshots.failed(status.hosts),
        *capacity.shortages(members, status.controller_kernel),
    ]


def _hosts(status: Status) -> Iterator[Finding]:
    for host, seen in status.hosts.items():
        ssh = status.outputs.ssh[host]
        if not seen.reached:
            then = f"start it, or run 'make up' if its container is gone; then: {ssh} uptime"
            yield Finding(host, f"does not answer SSH: {seen.error}", then)
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
        if not seen.reached:
            continue
        if seen.member is None:
            yield Finding(host, "its etcd member is not installed", status.up)
        elif not seen.member.healthy and seen.alarms:
            # The alarms are findings of their own, and a member with one is unhealthy.
            continue
        elif not seen.member.healthy:
            what, then = status.causes[host]
            yield Finding(host, f"its etcd member is not healthy: {what}", then)
        elif missing := sorted(set(status.members) - set(seen.member.members)):
            yield Finding(
                host,
                f"its etcd member does not know {', '.join(missing)}",
                members.REJOIN.format(up=status.up),
            )


def _calico(status: Status) -> Iterator[Finding]:
    if not status.networked and any(seen.complete for seen in status.hosts.values()):
        yield Finding(status.outputs.network, "no host has Calico", status.up)
    for host in status.networked:
        seen = status.hosts[host]
        ssh = status.outputs.ssh[host]
        for program, unit, ready, line in (
            ("Felix", "calico-lab-felix", seen.felix_ready, seen.felix),
            ("the Docker driver", "calico-lab-docker-driver", seen.driver_ready, seen.driver),
        ):
            if not ready:
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


def _containers(status: Status) -> Iterator[Finding]:
    for host, seen in status.hosts.items():
        for container in seen.containers:
            off = container.name in status.outputs.stopped
            if container.stack is not None and not container.healthy and not off:
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
            # The stack has no resource for the firewall of such a host.
            next_step = f"remove the rules that lab --stack {status.stack} drift lists"
            yield Finding(host, "has firewall rules of the lab, though no policy is active", next_step)
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
