"""The guard: refuses policies that would block a flow which the lab or its operator needs.

Pure. It evaluates the host's active policies for the first packet of each such flow, as the host will, and
names the rule that decides. It runs while the config is validated, so a preview refuses what an update would.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.evaluate import Decision, Packet, decide, unknown_matches
from components.firewall.rules.lab_hosts import LabHosts
from components.firewall.rules.resolve import OPERATOR, ResolvedPolicy, resolve
from components.shared.flows import HostFlow
from components.shared.policy_values import PolicyError


@dataclass(frozen=True)
class RequiredFlow:
    """Connections that must stay open."""

    purpose: str
    origin: str
    """Who opens them: a host's name, or `operator`."""
    source: str
    """The address of the origin."""
    host: str
    """The name of the host that they go to."""
    protocol: str
    port: int
    mac: str | None = None
    """The MAC address of the origin; None if it is not known."""

    def __str__(self) -> str:
        origin = self.origin if self.origin == self.source else f"{self.origin} ({self.source})"
        return f"{self.purpose}, {self.protocol}/{self.port} from {origin}"


def required_flows(
    lab: LabHosts, between_hosts: Iterable[HostFlow] = (), *, proxies: Mapping[str, int] | None = None
) -> list[RequiredFlow]:
    """List the flows that must stay open.

    Args:
        lab: The hosts, and the operator's addresses.
        between_hosts: The flows that the components need.
        proxies: The port of the HTTP proxy on each host that runs one.
    """
    flows = []
    for source in lab.operator:
        known = lab.with_address(source)
        mac = known.mac if known else None
        services = [("the operator's SSH", name, host.ssh_port) for name, host in lab.hosts.items()]
        services += [("the HTTP proxy", host, port) for host, port in (proxies or {}).items()]
        flows += [
            RequiredFlow(purpose, OPERATOR, str(source), host, "tcp", port, mac)
            for purpose, host, port in services
        ]
    for purpose, origin, host, protocol, port in between_hosts:
        sender = lab.hosts[origin]
        flows.append(RequiredFlow(purpose, origin, sender.address, host, protocol, port, sender.mac))
    return flows


def _decisions(
    policies: Mapping[str, Sequence[ResolvedPolicy]], lab: LabHosts, flow: RequiredFlow
) -> Iterator[tuple[Decision, bool]]:
    """Decide on a flow's first packet; rate limits count as exceeded, because at some time they will be.

    Yields:
        Each possible decision, and whether it depends on a MAC address that is not known.
    """
    packet = Packet(
        source=ip_address(flow.source),
        destination=ip_address(lab.hosts[flow.host].address),
        protocol=flow.protocol,
        port=flow.port,
        mac=flow.mac,
    )
    active = policies.get(flow.host, ())
    yield decide(active, packet, limits_exceeded=True), False
    for unknown in unknown_matches(active, packet, limits_exceeded=True):
        mac = unknown.rule.source_mac
        if packet.mac is None and mac and lab.may_have_mac(packet.source, mac):
            yield decide(active, replace(packet, mac=mac), limits_exceeded=True), True


@dataclass(frozen=True)
class Blocker:
    """A rule, or a policy's default, that blocks flows to a host."""

    host: str
    path: str
    """Its path in the config."""
    mac_unknown: bool
    """Whether it blocks them only if the sender has a certain MAC address, which is not known."""

    def problem(self, flows: Sequence[RequiredFlow], lab: LabHosts) -> str:
        """A sentence with the flows, the cause, and the next step."""
        text = f"{self.path}: {'may cut' if self.mac_unknown else 'cuts'} on {self.host}: "
        text += "; ".join(str(flow) for flow in flows)
        origins = list(dict.fromkeys(flow.origin for flow in flows)) if self.mac_unknown else []
        if origins:
            text += f", because the MAC address of {', '.join(origins)} is not known"
        keys = [f"hosts.members.{origin}.mac" for origin in origins if origin in lab.hosts]
        give = f" give {', '.join(keys)}," if keys else ""
        return (
            f"{text}. Accept it in an earlier rule,{give} or set allowLockout: true on the policy to apply "
            "it anyway"
        )


def _blocked_flows(
    policies: Mapping[str, Sequence[ResolvedPolicy]], lab: LabHosts, flows: Sequence[RequiredFlow]
) -> dict[Blocker, list[RequiredFlow]]:
    """Find the flows that active policies without `allowLockout` block or may block."""
    blocked: dict[Blocker, list[RequiredFlow]] = {}
    for flow in flows:
        for decision, mac_unknown in _decisions(policies, lab, flow):
            policy = decision.policy
            if decision.verdict != "accept" and policy and not policy.policy.allow_lockout:
                blocker = Blocker(flow.host, decision.path or "", mac_unknown)
                blocked.setdefault(blocker, []).append(flow)
                break
    return blocked


def guard_policies(
    config: FirewallConfig, lab: LabHosts, flows: Sequence[RequiredFlow]
) -> dict[str, tuple[ResolvedPolicy, ...]]:
    """Resolve the policies, and refuse those that block a flow.

    Returns:
        What `resolve` returns.

    Raises:
        PolicyError: With every problem of the section, or else every rule that blocks a flow.
    """
    policies = resolve(config, lab)
    problems = [
        blocker.problem(blocked, lab) for blocker, blocked in _blocked_flows(policies, lab, flows).items()
    ]
    if problems:
        raise PolicyError(problems)
    return policies
