"""Checkup: asks the controller and all candidates, in parallel.

It reads the config and not the stack, because there may be no lab yet. It leaves nothing on a host: if the
config wants VXLAN, WireGuard or eBPF, a host creates such an interface and deletes it at once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pulumi import RunError

from components.calico import settings
from components.firewall.rules.guard import RequiredFlow
from components.firewall.rules.lab_hosts import lab_hosts
from components.firewall.rules.resolve import OPERATOR
from components.hosts import remote
from components.hosts.config import DockerHosts, ExistingHosts
from components.hosts.known import host_key
from components.hosts.ssh import write_access
from config import ports
from config.model import LabConfig, flows
from diagnosis import status
from diagnosis.facts import HostFacts
from diagnosis.finding import Finding
from diagnosis.tcp_probe import PROBE_SCRIPT, probe_variables
from lab.doctor.candidate import FACTS_SCRIPT, PROBE_SECONDS, Candidate, Listener, parse
from lab.doctor.controller import findings as controller_findings
from workspace.outputs import PROJECT, Outputs

PREPARE_SCRIPT = PROJECT / "components" / "hosts" / "scripts" / "prepare.sh"
PREPARE_SECONDS = 90


@dataclass(frozen=True)
class Checkup:
    """Everything that was found out before an `up`."""

    config: LabConfig
    controller: Sequence[Finding]
    """Findings about the controller."""
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    """Facts by host; empty if `up` creates the hosts."""
    refusals: Sequence[settings.Refusal] = ()
    """Why hosts cannot have the network settings in the config."""
    lab: Mapping[str, HostFacts] = field(default_factory=dict)
    """Facts by host of a lab that is up; empty without one."""

    @cached_property
    def needs(self) -> list[RequiredFlow]:
        """The TCP flows between hosts that the lab needs."""
        every = flows(self.config, lab_hosts(self.config.hosts, self.config.firewall))
        between = [flow for flow in every if flow.protocol == "tcp" and flow.origin != OPERATOR]
        return sorted(between, key=lambda flow: (flow.origin, flow.host))

    def listeners(self, host: str) -> Iterator[Listener]:
        """Return where programs of the lab will listen on a host by TCP. SSH already does."""
        for listener in ports.listeners(self.config, host):
            if listener.protocol == "tcp" and listener.owner != ports.SSH:
                for address in listener.addresses:
                    yield Listener(address, listener.port, listener.owner)

    @property
    def networked(self) -> Sequence[str]:
        """The hosts on the container network."""
        return self.config.network.hosts or tuple(self.config.hosts.members)

    def address(self, host: str) -> str:
        """Return a host's address."""
        return str(self.config.hosts.members[host].address)


def look(config: LabConfig, outputs: Outputs | None = None) -> Checkup:
    """Ask the controller, and the candidates in the config if they exist already.

    Args:
        config: The config.
        outputs: The outputs of a lab that is up; its hosts are asked too.
    """
    lab = status.ask(outputs) if outputs else {}
    checkup = Checkup(config, list(controller_findings(config)), lab=lab)
    if isinstance(config.hosts, DockerHosts):
        return checkup
    with TemporaryDirectory() as folder, ThreadPoolExecutor(len(config.hosts.members)) as pool:
        ssh = ssh_commands(config.hosts, Path(folder))
        answers = pool.map(lambda host: _ask(checkup, host, ssh[host]), ssh)
        candidates = dict(zip(ssh, answers, strict=True))
        reached = {
            host: {"address": checkup.address(host), "ssh": ssh[host], "made": False}
            for host in checkup.networked
            if not candidates[host].error
        }
        described = settings.described(config.network, reached)
        refusals = settings.refusals({}, described, settings.ASK_SECONDS) if reached else []
        return replace(checkup, candidates=candidates, refusals=refusals)


def ssh_commands(hosts: ExistingHosts, folder: Path) -> dict[str, str | RunError]:
    """Write SSH settings like the lab's own to a folder.

    Returns:
        The ssh command by host, or the error if the host's key is not known.
    """
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


def _ask(checkup: Checkup, host: str, ssh: str | RunError) -> Candidate:
    address = checkup.address(host)
    if isinstance(ssh, RunError):
        return Candidate(address, str(ssh))
    # The same check as at the beginning of an `up`.
    fit = remote.run(ssh, PREPARE_SCRIPT.read_text(), {"HOST": host, "CHECK_ONLY": "yes"}, PREPARE_SECONDS)
    if fit.status != 0:
        return Candidate(address, fit.error.removeprefix(f"{host}: ") or f"exit status {fit.status}")
    flows_from_host = [flow for flow in checkup.needs if flow.origin == host]
    addresses = " ".join(sorted({checkup.address(flow.host) for flow in flows_from_host}))
    targets = [f"{checkup.address(flow.host)}:{flow.port}" for flow in flows_from_host]
    probes = remote.run(
        ssh, PROBE_SCRIPT.read_text(), probe_variables(targets, PROBE_SECONDS, until="answered")
    )
    before = time.time()
    facts = remote.run(ssh, FACTS_SCRIPT.read_text(), {"ADDRESSES": addresses})
    return parse(facts, probes, address, (before, time.time()))
