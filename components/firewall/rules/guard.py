"""The guard: refuses policies that would cut a connection the lab, or its operator, cannot do without.

Pure. It asks the evaluator about every such flow, so it judges the policies together, as the host will, and
names the rule that decides. It is asked while the program runs: a preview refuses what an update would.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import NamedTuple

from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.evaluate import Decision, Packet, decide, doubts
from components.firewall.rules.lab import Lab
from components.firewall.rules.resolve import ResolvedPolicy, resolve
from components.shared.policy_values import PolicyError


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
        known = lab.at(source)
        mac = known.mac if known else None
        services = [("the operator's SSH", name, lab.hosts[name].ssh_port) for name in lab.hosts]
        services += [("the HTTP proxy", *proxy)] if proxy else []
        flows += [
            Flow(purpose, "operator", str(source), host, "tcp", port, mac) for purpose, host, port in services
        ]
    for purpose, origin, host, protocol, port in needs:
        machine = lab.hosts[origin]
        flows.append(Flow(purpose, origin, machine.address, host, protocol, port, machine.mac))
    return flows


def decisions(
    policies: Mapping[str, Sequence[ResolvedPolicy]], lab: Lab, flow: Flow
) -> Iterator[tuple[Decision, bool]]:
    """Decide about a flow's first packet; a rate limit counts as spent, because some day it will be.

    Returns:
        Each decision that is possible, and whether it depends on a MAC address that is not known.
    """
    packet = Packet(
        source=ip_address(flow.source),
        destination=ip_address(lab.hosts[flow.host].address),
        protocol=flow.protocol,
        port=flow.port,
        mac=flow.mac,
    )
    here = policies.get(flow.host, ())
    yield decide(here, packet, limits_spent=True), False
    for doubt in doubts(here, packet, limits_spent=True):
        mac = doubt.rule.source_mac
        if packet.mac is None and mac and lab.may_have(packet.source, mac):
            yield decide(here, replace(packet, mac=mac), limits_spent=True), True


@dataclass(frozen=True)
class Cut:
    """What one rule, or one policy's default, does to flows on a host."""

    host: str
    path: str
    """Where it stands in the config."""
    in_doubt: bool
    """Whether it depends on the sender's MAC address, which is not known."""

    def refusal(self, flows: Sequence[Flow], lab: Lab) -> str:
        """A sentence that says which flows, why, and what to do about it."""
        said = f"{self.path}: {'may cut' if self.in_doubt else 'cuts'} on {self.host}: "
        said += "; ".join(str(flow) for flow in flows)
        unknown = list(dict.fromkeys(flow.origin for flow in flows)) if self.in_doubt else []
        if unknown:
            said += f", because the MAC address of {', '.join(unknown)} is not known"
        known = [f"hosts.members.{origin}.mac" for origin in unknown if origin in lab.hosts]
        give = f" give {', '.join(known)}," if known else ""
        return (
            f"{said}. Accept it in an earlier rule,{give} or set allowLockout: true on the policy to apply "
            "it all the same"
        )


def refused(
    policies: Mapping[str, Sequence[ResolvedPolicy]], lab: Lab, flows: Sequence[Flow]
) -> dict[Cut, list[Flow]]:
    """Find the flows that active policies without `allowLockout` cut or, by what is known, may cut."""
    cuts: dict[Cut, list[Flow]] = {}
    for flow in flows:
        for decision, in_doubt in decisions(policies, lab, flow):
            policy = decision.policy
            if decision.verdict != "accept" and policy and not policy.policy.allow_lockout:
                cuts.setdefault(Cut(flow.host, decision.path or "", in_doubt), []).append(flow)
                break
    return cuts


def guarded(config: FirewallConfig, lab: Lab, flows: Sequence[Flow]) -> dict[str, tuple[ResolvedPolicy, ...]]:
    """Resolve the policies and refuse those that cut a flow.

    Returns:
        What `resolve` returns.

    Raises:
        PolicyError: With every problem of the section, or every flow that is cut.
    """
    policies = resolve(config, lab)
    problems = [cut.refusal(hit, lab) for cut, hit in refused(policies, lab, flows).items()]
    if problems:
        raise PolicyError(problems)
    return policies
