"""Findings of a checkup: what prevents a lab. Pure."""

from collections.abc import Iterator, Mapping
from itertools import groupby, permutations

from config.model import services
from diagnosis import certificates, snapshots
from diagnosis.capacity import FREE_MEMORY, GIB, gib
from diagnosis.finding import Finding
from lab.doctor import controller
from lab.doctor.candidate import REACHED, Candidate
from lab.doctor.checkup import Checkup

MIB = 1 << 20
NEEDED_MEMORY = 1 * GIB
MAX_CLOCK_SECONDS = 2.0
"""How wrong a clock may be. etcd warns from one second on."""

Candidates = Mapping[str, Candidate]


def findings(checkup: Checkup) -> list[Finding]:
    """Everything that prevents a lab, basic things first."""
    fit = {name: candidate for name, candidate in checkup.candidates.items() if not candidate.error}
    # An installed lab listens, routes and uses memory and disk already.
    without_lab = {name: candidate for name, candidate in fit.items() if not candidate.installed}
    return [
        *checkup.controller,
        *(_unfit(checkup, name) for name, candidate in checkup.candidates.items() if candidate.error),
        *_refusals(checkup),
        *_capacity(without_lab),
        *_limits(checkup, fit),
        *_clocks(fit),
        *_ports(checkup, without_lab),
        *_routers(checkup, fit),
        *_connections(checkup, fit),
        *snapshots.quorum(checkup.lab, "pulumi up"),
        *snapshots.alarms(checkup.lab, "pulumi up"),
    ]


def warnings(checkup: Checkup, up: str) -> list[Finding]:
    """What an `up` repairs, and what needs one soon.

    Args:
        checkup: The checkup.
        up: The command.
    """
    return [
        *certificates.expired(checkup.lab, up),
        *certificates.expiring(checkup.lab, up),
        *snapshots.old(checkup.lab),
        *snapshots.failed(checkup.lab),
    ]


def _unfit(checkup: Checkup, name: str) -> Finding:
    candidate = checkup.candidates[name]
    what, _, next_step = " ".join(candidate.error.split()).partition("; ")
    if not next_step:
        members = checkup.config.etcd.members
        next_step = f"log in to {candidate.address} with ssh -v, which says more"
        if name in members and len(members) > 1:
            next_step += (
                f"; if it is gone for good, set hosts.members.{name}.lost: true and run 'pulumi up'; then "
                f"put another host in its place in etcd.members: [{', '.join(members)}] (docs/etcd.md)"
            )
    return Finding(name, what, next_step)


def _refusals(checkup: Checkup) -> Iterator[Finding]:
    for refusal in checkup.refusals:
        why, _, next_step = refusal.why.removeprefix(f"{refusal.host}: ").partition("; ")
        # A refusal of network.cidr names the key itself.
        named = refusal.key in ("", "cidr")
        what = why if named else f"cannot have network.{refusal.key} as it is: {why}"
        yield Finding(refusal.host, what, next_step or "take it out of the config, or another kernel there")


def _capacity(candidates: Candidates) -> Iterator[Finding]:
    for name, candidate in candidates.items():
        yield from controller.disk(name, "/var/lib", candidate.disk)
        if candidate.memory < NEEDED_MEMORY:
            what = f"{gib(candidate.memory)} of memory are free, and the lab needs {gib(NEEDED_MEMORY)}"
            yield Finding(name, what, FREE_MEMORY)


def _limits(checkup: Checkup, candidates: Candidates) -> Iterator[Finding]:
    """Limits of services that exceed their hosts. Docker refuses such a CPU limit, but no memory limit."""
    for section, service in services(checkup.config).items():
        if service.host not in candidates:
            continue
        candidate = candidates[service.host]
        memory = candidate.total_memory // MIB
        for key, limit, most in (("cpus", service.cpus, candidate.cpus), ("memory", service.memory, memory)):
            if limit > most:
                yield Finding(
                    service.host,
                    f"{section}.{key} is {limit}, and the host has {most}",
                    f"set {section}.{key} to at most {most}, or {section}.host to a larger host",
                )


def _clocks(candidates: Candidates) -> Iterator[Finding]:
    for name, candidate in candidates.items():
        seconds = candidate.clock_ahead
        if abs(seconds) > MAX_CLOCK_SECONDS:
            direction = "ahead of" if seconds > 0 else "behind"
            yield Finding(
                name,
                f"its clock is {abs(seconds):.0f} s {direction} the controller's: certificates and etcd mind",
                "there: timedatectl set-ntp true, or whatever keeps its time",
            )


def _ports(checkup: Checkup, candidates: Candidates) -> Iterator[Finding]:
    for name, candidate in candidates.items():
        taken = {
            (present.port, present.program, wanted.program)
            for wanted in checkup.listeners(name)
            for present in candidate.listeners
            if present.excludes(wanted)
        }
        for port, program, purpose in sorted(taken):
            yield Finding(
                name,
                f"tcp/{port} is taken by {program}, and wanted for {purpose}",
                f"there: ss -ltnp sport = :{port}, and have that listen elsewhere",
            )


def _routers(checkup: Checkup, candidates: Candidates) -> Iterator[Finding]:
    """Without encapsulation, a router between hosts has no route to containers."""
    if checkup.config.network.encapsulation != "none":
        return
    for name, other in permutations(checkup.networked, 2):
        router = candidates[name].gateways.get(checkup.address(other)) if name in candidates else None
        if router:
            yield Finding(
                name,
                f"{other} is beyond the router {router}, which does not know containers' addresses",
                "calico-lab:network: {encapsulation: vxlan-cross-subnet}, or hosts on one segment",
            )


def _connections(checkup: Checkup, candidates: Candidates) -> Iterator[Finding]:
    for (name, host), wanted in groupby(checkup.needs, lambda flow: (flow.origin, flow.host)):
        if name not in candidates:
            continue
        address = checkup.address(host)
        results = {
            flow: candidates[name].connections.get((address, flow.port), "not tried") for flow in wanted
        }
        failed = {flow: result for flow, result in results.items() if result not in REACHED}
        if failed:
            ports = ", ".join(f"tcp/{flow.port} ({flow.purpose})" for flow in failed)
            causes = ", ".join(sorted(set(failed.values())))
            yield Finding(
                name,
                f"does not get through to {host} ({address}): {ports}: {causes}",
                f"is {host} up? then let these ports in there, and wherever a firewall is in between",
            )
