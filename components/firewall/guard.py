"""The guard: refuses policies that would cut a connection the lab, or its operator, cannot do without.

Pure. It asks the evaluator about every such flow, so it judges the policies together, as the host will, and
names the rule that decides. It is asked while the program runs: a preview refuses what an update would.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from components.firewall.evaluate import Decision, Packet, decide
from components.firewall.lab import Lab
from components.firewall.policy import FirewallConfig
from components.firewall.resolve import PolicyError, ResolvedPolicy, resolve


class Need(NamedTuple):
    """What one host has to be able to open to another, for a component that is on both."""

    purpose: str
    origin: str
    """The host that opens it."""
    host: str
    """The host that it goes to."""
    protocol: str
    port: int


@dataclass(frozen=True)
class Flow:
    """Connections that have to come through."""

    purpose: str
    origin: str
    """Who opens them: a host's name, or `operator`."""
    source: str
    host: str
    """The host that they go to."""
    protocol: str
    port: int
    mac: str | None = None

    def __str__(self) -> str:
        origin = self.origin if self.origin == self.source else f"{self.origin} ({self.source})"
        return f"{self.purpose}, {self.protocol}/{self.port} from {origin}"


def lab_flows(lab: Lab, needs: Iterable[Need] = (), *, proxy: tuple[str, int] | None = None) -> list[Flow]:
    """List the flows that the lab needs.

    Args:
        lab: The machines and where the operator comes from.
        needs: What the components need between hosts.
        proxy: The host and the port of the HTTP proxy.
    """
    flows = []
    for source in lab.operator:
        for name, machine in lab.hosts.items():
            flows.append(Flow("the operator's SSH", "operator", str(source), name, "tcp", machine.ssh_port))
        if proxy:
            flows.append(Flow("the HTTP proxy", "operator", str(source), proxy[0], "tcp", proxy[1]))
    for purpose, origin, host, protocol, port in needs:
        machine = lab.hosts[origin]
        flows.append(Flow(purpose, origin, machine.address, host, protocol, port, machine.mac))
    return flows


def decide_flow(policies: Mapping[str, Sequence[ResolvedPolicy]], lab: Lab, flow: Flow) -> Decision:
    """Decide about a flow's first packet; a rate limit counts as spent, because some day it will be."""
    packet = Packet(
        source=ip_address(flow.source),
        destination=ip_address(lab.hosts[flow.host].address),
        protocol=flow.protocol,
        port=flow.port,
        mac=flow.mac,
    )
    return decide(policies.get(flow.host, ()), packet, limits_spent=True)


def refused(
    policies: Mapping[str, Sequence[ResolvedPolicy]], lab: Lab, flows: Sequence[Flow]
) -> dict[tuple[str, str], list[Flow]]:
    """Find the flows that active policies without `allowLockout` cut, by host and path in the config."""
    cut: dict[tuple[str, str], list[Flow]] = {}
    for flow in flows:
        decision = decide_flow(policies, lab, flow)
        if decision.verdict != "accept" and decision.policy and not decision.policy.policy.allow_lockout:
            cut.setdefault((flow.host, decision.path or ""), []).append(flow)
    return cut


def guarded(config: FirewallConfig, lab: Lab, flows: Sequence[Flow]) -> dict[str, tuple[ResolvedPolicy, ...]]:
    """Resolve the policies and refuse those that cut a flow.

    Returns:
        What `resolve` returns.

    Raises:
        PolicyError: With every problem of the section, or every flow that is cut.
    """
    policies = resolve(config, lab)
    problems = [
        f"{path}: cuts on {host}: {'; '.join(str(flow) for flow in cut)}. "
        "Accept it in an earlier rule, or set allowLockout: true on the policy to apply it all the same"
        for (host, path), cut in refused(policies, lab, flows).items()
    ]
    if problems:
        raise PolicyError(problems)
    return policies
