"""Whether the machines that a config names can carry the lab: asked before an `up`, of all of them at once.

What an `up` would stop at one machine after the other is told together, and what it would not notice at all:
a port that another program has, a network that exists already, a clock that is wrong, a firewall in between.
It reads the config and not the stack, since there may be no lab yet; and it leaves nothing: where the config
asks for VXLAN, WireGuard or eBPF, a machine tries to make such an interface, which goes at once.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pulumi import RunError

from components.calico import settings as mode
from components.firewall.rules.guard import RequiredFlow
from components.firewall.rules.lab_hosts import lab_hosts
from components.firewall.rules.resolve import OPERATOR
from components.hosts import remote
from components.hosts.config import DockerHosts, ExistingHosts
from components.hosts.container import interface_in
from components.hosts.known import host_key
from components.hosts.ssh import write_access
from config import ports
from config.model import LabConfig, flows, services
from diagnosis import status
from diagnosis.facts import HostFacts, by_name
from diagnosis.status import CONTROLLER, GIB, MAKE_ROOM, MORE_MEMORY, Finding, size
from workspace.outputs import PROJECT, Outputs

PROBE = Path(__file__).with_name("scripts") / "doctor.sh"
PREPARE = PROJECT / "components" / "hosts" / "scripts" / "prepare.sh"
MIB = 1 << 20
MEMORY = 1 * GIB
DISK = 3 * GIB
"""For packages, and for images with their layers, also while they are built or brought."""
CLOCK_SECONDS = 2.0
"""How wrong a clock may be; etcd itself warns from one second on."""
EVERYWHERE = (ports.EVERY_ADDRESS, "*", "[::]")
"""How a program that listens at each address of its machine is listed."""
# That nobody listens there yet is an answer of the machine itself.
COMES_THROUGH = ("connected", "Connection refused")
_ENGINE = ["docker", "info", "--format", "{{.DockerRootDir}}"]


class Listener(NamedTuple):
    """Where a program listens, or is going to."""

    address: str
    port: int
    who: str

    def excludes(self, other: "Listener") -> bool:
        """Whether only one of the two can be had."""
        return self.port == other.port and (
            self.address == other.address or self.address in EVERYWHERE or other.address in EVERYWHERE
        )


@dataclass(frozen=True)
class Machine:
    """What one machine said of itself."""

    address: str
    error: str = ""
    """Why it is no host for a lab, and what to do next; nothing else is known of it then."""
    release: str = ""
    cpus: int = 0
    memory: int = 0
    """Bytes that programs can have."""
    total_memory: int = 0
    """Bytes that it has."""
    disk: int = 0
    """Bytes that are free where Docker keeps its images."""
    ahead: float = 0.0
    """Seconds by which its clock is ahead of the controller's, at least."""
    installed: bool = False
    """Whether there is a lab on it."""
    listeners: Sequence[Listener] = ()
    """The programs that listen by TCP."""
    gateways: Mapping[str, str] = field(default_factory=dict)
    """The router on the way to another machine, by that machine's address; none on one segment."""
    connections: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """What became of a connection, by address and port."""


@dataclass(frozen=True)
class Checkup:
    """What was seen before an `up`."""

    config: LabConfig
    controller: Sequence[Finding]
    """What this machine lacks."""
    machines: Mapping[str, Machine] = field(default_factory=dict)
    """By name; none where `up` makes them."""
    refusals: Sequence[mode.Refusal] = ()
    """What machines have against the mode of the network that the config asks for."""
    lab: Mapping[str, HostFacts] = field(default_factory=dict)
    """What the hosts of the lab say that is up already, by name; none without one."""

    @cached_property
    def needs(self) -> list[RequiredFlow]:
        """The connections by TCP between hosts that the lab lives by."""
        every = flows(self.config, lab_hosts(self.config.hosts, self.config.firewall))
        between = [flow for flow in every if flow.protocol == "tcp" and flow.origin != OPERATOR]
        return sorted(between, key=_pair)

    def listeners(self, host: str) -> Iterator[Listener]:
        """The lab's own programs that are going to listen on a host by TCP; SSH does already."""
        for listener in ports.listeners(self.config, host):
            if listener.protocol == "tcp" and listener.owner != ports.SSH:
                yield from (
                    Listener(address, listener.port, listener.owner) for address in listener.addresses
                )

    @property
    def networked(self) -> Sequence[str]:
        """The hosts on the containers' network."""
        return self.config.network.hosts or tuple(self.config.hosts.members)

    def address(self, host: str) -> str:
        """A host's address."""
        return str(self.config.hosts.members[host].address)


def look(config: LabConfig, outputs: Outputs | None = None) -> Checkup:
    """Ask this machine, and those in the config that are there already.

    Args:
        config: The config.
        outputs: The stack's, where the lab is up already: its hosts are asked, too, whoever made them.
    """
    lab = status.ask(outputs) if outputs else {}
    seen = Checkup(config, list(_controller(config)), lab=lab)
    if isinstance(config.hosts, DockerHosts):
        return seen
    with TemporaryDirectory() as folder, ThreadPoolExecutor(len(config.hosts.members)) as pool:
        ssh = _access(config.hosts, Path(folder))
        machines = dict(zip(ssh, pool.map(lambda host: _ask(seen, host, ssh[host]), ssh), strict=True))
        reached = {
            host: {"address": seen.address(host), "ssh": ssh[host], "made": False}
            for host in seen.networked
            if not machines[host].error
        }
        carried = mode.described(config.network, reached)
        refusals = mode.refusals({}, carried, mode.ASK_SECONDS) if reached else []
        return replace(seen, machines=machines, refusals=refusals)


def _access(hosts: ExistingHosts, folder: Path) -> dict[str, str | RunError]:
    """Make SSH access like the lab's own, in a folder that goes; the reason, where a machine has none."""
    found: dict[str, str | RunError] = {}
    reached: list[dict[str, Any]] = []
    for name, member in hosts.members.items():
        try:
            key = host_key(member, hosts.known_hosts)
        except RunError as error:
            found[name] = error
            continue
        found[name] = f"ssh -F {folder}/config {name}"
        reached.append(
            {
                "alias": name,
                "address": str(member.address),
                "port": member.port,
                "user": member.user,
                "host_key": key,
            }
        )
    write_access(folder, reached, hosts.identity)
    return found


def _ask(seen: Checkup, host: str, ssh: str | RunError) -> Machine:
    address = seen.address(host)
    if isinstance(ssh, RunError):
        return Machine(address, str(ssh))
    # What an `up` begins with has to find nothing against the machine.
    fit = remote.run(ssh, PREPARE.read_text(), {"HOST": host, "CHECK_ONLY": "yes"}, seconds=90)
    if fit.status != 0:
        return Machine(address, fit.error.removeprefix(f"{host}: ") or f"exit status {fit.status}")
    wanted = [f"{seen.address(flow.host)} {flow.port}" for flow in seen.needs if flow.origin == host]
    before = time.time()
    answer = remote.run(ssh, PROBE.read_text(), {"FLOWS": "\n".join(wanted)})
    return parse(answer, address, (before, time.time()))


def parse(answer: remote.Answer, address: str, asked: tuple[float, float]) -> Machine:
    """Read what `doctor.sh` printed.

    Args:
        answer: What it printed.
        address: The machine's address.
        asked: The controller's time when it was asked and when it had answered, in seconds.
    """
    lines = by_name(answer.text)
    if "complete" not in lines:
        return Machine(address, answer.error or "it broke off what it was saying")
    clock = float(lines["clock"][0])
    before, after = asked
    ways = [line.split() for line in lines["way"]]
    tried = [line.split(maxsplit=2) for line in lines["flow"]]
    return Machine(
        address,
        release=lines["release"][0],
        cpus=int(lines["cpus"][0]),
        memory=int(lines["memory"][0]) * 1024,
        total_memory=int(lines["total"][0]) * 1024,
        disk=int(lines["disk"][0]) * 1024,
        ahead=max(clock - after, 0) or min(clock - before, 0),
        installed="lab" in lines,
        listeners=list(map(_listener, lines["listener"])),
        gateways={way[0]: way[2] for way in ways if way[1] == "via"},
        connections={(to, int(port)): said for to, port, said in tried},
    )


def _listener(line: str) -> Listener:
    """Read a line of `ss -Hltnp`: state, queues, address and port, the other end, and the program."""
    words = line.split(maxsplit=5)
    address, _, port = words[3].rpartition(":")
    _, _, program = line.partition('users:(("')
    # An address may have its interface behind it: 127.0.0.53%lo.
    return Listener(address.partition("%")[0], int(port), program.partition('"')[0] or "a program")


def findings(seen: Checkup) -> list[Finding]:
    """Everything that stands in a lab's way, the most basic first."""
    well = {name: machine for name, machine in seen.machines.items() if not machine.error}
    # A lab that is there has its part already: it listens, it routes, it has taken its room.
    bare = {name: machine for name, machine in well.items() if not machine.installed}
    return [
        *seen.controller,
        *(_unfit(name, machine) for name, machine in seen.machines.items() if machine.error),
        *_modes(seen),
        *_rooms(bare),
        *_limits(seen, well),
        *_clocks(well),
        *_ports(seen, bare),
        *_ways(seen, well),
        *_connections(seen, well),
    ]


def warnings(seen: Checkup, up: str) -> list[Finding]:
    """What stands in no way, because an `up` sees to it, and has to be done before long.

    Args:
        seen: What was seen.
        up: The command.
    """
    return [*status.ended_certificates(seen.lab, up), *status.ending_certificates(seen.lab, up)]


def _controller(config: LabConfig) -> Iterator[Finding]:
    if isinstance(config.hosts, DockerHosts):
        used = interface_in(config.hosts.network, Path("/proc/net/route").read_text())
        if used:
            yield Finding(
                CONTROLLER,
                f"hosts.network {config.hosts.network} is in use by {used}",
                "give hosts.network, and the addresses in it, another private network",
            )
    try:
        answer = subprocess.run(_ENGINE, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        yield Finding(
            CONTROLLER, f"Docker does not answer: {said}", "make setup, which installs and starts it"
        )
        return
    folder = Path(answer.stdout.strip())
    # An engine on another machine has its folder there.
    if folder.is_dir():
        yield from _room(CONTROLLER, folder, shutil.disk_usage(folder).free)


def _unfit(name: str, machine: Machine) -> Finding:
    what, _, after = " ".join(machine.error.split()).partition("; ")
    return Finding(name, what, after or f"log in to {machine.address} with ssh -v, which says more")


def _room(where: str, folder: str | Path, free: int) -> Iterator[Finding]:
    if free < DISK:
        what = f"{size(free)} are free in {folder}, and the lab needs {size(DISK)}"
        yield Finding(where, what, MAKE_ROOM)


def _modes(seen: Checkup) -> Iterator[Finding]:
    for refusal in seen.refusals:
        why, _, after = refusal.why.removeprefix(f"{refusal.host}: ").partition("; ")
        # What lies in network.cidr is said with the key already.
        other = refusal.key not in ("", "cidr")
        what = f"cannot have network.{refusal.key} as it is: {why}" if other else why
        yield Finding(refusal.host, what, after or "take it out of the config, or another kernel there")


def _rooms(machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for name, machine in machines.items():
        yield from _room(name, "/var/lib", machine.disk)
        if machine.memory < MEMORY:
            what = f"{size(machine.memory)} of memory are free, and the lab needs {size(MEMORY)}"
            yield Finding(name, what, MORE_MEMORY)


def _limits(seen: Checkup, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    """What services may use, and their hosts do not have: Docker refuses such processors, not such memory."""
    for section, service in services(seen.config).items():
        if service.host not in machines:
            continue
        machine = machines[service.host]
        memory = machine.total_memory // MIB
        for key, limit, most in (("cpus", service.cpus, machine.cpus), ("memory", service.memory, memory)):
            if limit > most:
                yield Finding(
                    service.host,
                    f"{section}.{key} is {limit}, and the host has {most}",
                    f"set {section}.{key} to at most {most}, or {section}.host to a larger host",
                )


def _clocks(machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for name, machine in machines.items():
        if abs(machine.ahead) > CLOCK_SECONDS:
            way = "ahead of" if machine.ahead > 0 else "behind"
            yield Finding(
                name,
                f"its clock is {abs(machine.ahead):.0f} s {way} this machine's: certificates and etcd mind",
                "there: timedatectl set-ntp true, or whatever keeps its time",
            )


def _ports(seen: Checkup, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for name, machine in machines.items():
        taken = {
            (there.port, there.who, wanted.who)
            for wanted in seen.listeners(name)
            for there in machine.listeners
            if there.excludes(wanted)
        }
        for port, program, purpose in sorted(taken):
            yield Finding(
                name,
                f"tcp/{port} is taken by {program}, and wanted for {purpose}",
                f"there: ss -ltnp sport = :{port}, and have that listen elsewhere",
            )


def _ways(seen: Checkup, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    if seen.config.network.encapsulation != "none":
        return
    for name, other in permutations(seen.networked, 2):
        router = machines[name].gateways.get(seen.address(other)) if name in machines else None
        if router:
            yield Finding(
                name,
                f"{other} is beyond the router {router}, which does not know containers' addresses",
                "calico-lab:network: {encapsulation: vxlan-cross-subnet}, or hosts on one segment",
            )


def _connections(seen: Checkup, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for (name, host), wanted in groupby(seen.needs, _pair):
        if name not in machines:
            continue
        tried = {
            flow: machines[name].connections.get((seen.address(host), flow.port), "not tried")
            for flow in wanted
        }
        kept = {flow: became for flow, became in tried.items() if became not in COMES_THROUGH}
        if kept:
            ports = ", ".join(f"tcp/{flow.port} ({flow.purpose})" for flow in kept)
            said = ", ".join(sorted(set(kept.values())))
            yield Finding(
                name,
                f"does not get through to {host} ({seen.address(host)}): {ports}: {said}",
                f"is {host} up? then let these ports in there, and wherever a firewall is in between",
            )


def _pair(flow: RequiredFlow) -> tuple[str, str]:
    return flow.origin, flow.host


def document(seen: Checkup, up: str) -> dict[str, Any]:
    """The checkup for machines; its keys are a contract."""
    found = findings(seen)
    return {
        "fit": not found,
        "findings": [vars(finding) for finding in found],
        "warnings": [vars(warning) for warning in warnings(seen, up)],
        "machines": [
            {
                "name": name,
                "address": machine.address,
                "release": machine.release,
                "cpus": machine.cpus,
                "memoryBytes": machine.memory,
                "diskBytes": machine.disk,
                "clockSeconds": machine.ahead,
                "installed": machine.installed,
            }
            for name, machine in seen.machines.items()
        ],
        "lab": [
            {"name": host, "certificates": status.certificates(there)} for host, there in seen.lab.items()
        ],
    }
