"""Felix's verdict with dataplane ebpf, from the counters of BPF programs before and after a packet. Pure.

Felix compiles the policies of a workload endpoint to a BPF program at the host's end of the veth pair, and
counts the packets that each rule decided on (`calico-node -bpf policy dump`). A packet that no rule allows is
only in the counter of all packets that policies dropped (`calico-node -bpf counters dump`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from diagnosis.trace.felix import Direction, FelixVerdict

# Seen from the host's end of the veth pair: what goes out there goes to the container.
_HOOKS: Mapping[str, Direction] = {"tc ingress": "egress", "tc egress": "ingress"}
_NAME = re.compile(r"IfaceName: (?P<name>\S+)")
_HOOK = re.compile(r"Hook: (?P<hook>.*)")
_TIER = re.compile(r"// (?P<edge>Start|End) of tier (?P<name>[^\s:]+)(?:: (?P<action>\w+))?")
_POLICY = re.compile(r"// (?P<edge>Start|End) of policy (?P<name>\S+)")
_RULE = re.compile(r'// Start of rule (?P<text>.*?)\s*rule_id:"(?P<id>[^"]+)"')
_COUNT = re.compile(r"// count = (?P<count>\d+)")
_ROUTE = re.compile(r"\s*(?P<network>[\d.]+/\d+): (?P<flags>.+)")
_NEXT_HOST = re.compile(r"\bnh (\S+)")
_ACTION = re.compile(r'action:"(?P<action>\w+)"')


@dataclass(frozen=True)
class BpfRule:
    """A rule of a policy or profile in a BPF program."""

    policy: str
    """Name of its policy; empty if it is a profile's."""
    text: str
    """The rule, as Felix prints it."""
    count: int
    """Number of packets that it decided on."""

    @property
    def action(self) -> str:
        """`allow`, `deny`, `pass` or `log`."""
        found = _ACTION.search(self.text)
        return found["action"] if found else ""


@dataclass(frozen=True)
class BpfProgram:
    """The program that decides on a container's packets in one direction."""

    interface: str
    hook: str
    dropped: int = 0
    """Number of packets that policies dropped, by a rule or by default."""
    policies: list[str] = field(default_factory=list)
    """Names of the policies that select the container."""
    denying: list[str] = field(default_factory=list)
    """Those of them whose tier denies what none of its policies decides on; other tiers pass it on."""
    rules: list[BpfRule] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Its hook and interface."""
        return f"{self.hook} of {self.interface}"


@dataclass(frozen=True)
class BpfRoute:
    """An entry of the programs' route map."""

    network: IPv4Network
    flags: str
    """`remote workload in-pool nat-out tunneled nh 172.16.6.218`."""

    @property
    def host(self) -> str | None:
        """Address of the host that has these addresses."""
        found = _NEXT_HOST.search(self.flags)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.network}: {self.flags}"


def parse_routes(dump: Iterable[str]) -> list[BpfRoute]:
    """Parse what `calico-node -bpf routes dump` printed."""
    return [
        BpfRoute(IPv4Network(found["network"]), found["flags"])
        for line in dump
        if (found := _ROUTE.fullmatch(line))
    ]


def parse_programs(dump: Iterable[str], dropped: Mapping[Direction, int]) -> Mapping[Direction, BpfProgram]:
    """Parse the programs of a container.

    Args:
        dump: What `calico-node -bpf policy dump` printed about its interface.
        dropped: Number of packets that policies dropped there.
    """
    programs: dict[Direction, BpfProgram] = {}
    name = policy = text = ""
    tier: list[str] = []
    program: BpfProgram | None = None
    for line in dump:
        if found := _NAME.match(line):
            name, program = found["name"], None
        elif (found := _HOOK.match(line)) and (direction := _HOOKS.get(found["hook"])):
            program = programs[direction] = BpfProgram(name, found["hook"], dropped.get(direction, 0))
        elif program is None:
            continue
        elif found := _TIER.match(line):
            program.denying.extend(tier if found["action"] == "deny" else ())
            tier = []
        elif found := _POLICY.match(line):
            policy = found["name"] if found["edge"] == "Start" else ""
            if policy:
                program.policies.append(policy)
                tier.append(policy)
        elif found := _RULE.match(line):
            # Protocol buffers vary the spaces in their text at random.
            text = " ".join(found["text"].split())
        elif found := _COUNT.match(line):
            program.rules.append(BpfRule(policy, text, int(found["count"])))
    return programs


def verdict_by_programs(
    before: BpfProgram | None, after: BpfProgram | None, profiles: Sequence[str], *, passed: bool
) -> FelixVerdict | None:
    """Return the verdict of a program; None if it saw no packet or is unknown.

    Args:
        before: The program before the packet.
        after: The program after the packet.
        profiles: The container's profiles, which decide if no policy selects it.
        passed: Whether the packet was seen behind the program.
    """
    if before is None or after is None:
        return None
    counts = {(rule.policy, rule.text): rule.count for rule in before.rules}
    met = [rule for rule in after.rules if rule.count > counts.get((rule.policy, rule.text), 0)]
    denies = [rule for rule in met if rule.action == "deny"]
    allows = [rule for rule in met if rule.action == "allow"]
    profile = f"profile {', '.join(profiles)}"
    deciding = [f"policy {name}" for name in after.policies] or [profile]
    chains = (after.place, *deciding)
    if denies and not passed:
        return FelixVerdict(False, _owner(denies[0], profile), denies[0].text, chains)
    if not passed and after.dropped > before.dropped:
        denying = ", ".join(f"policy {name}" for name in after.denying) or profile
        return FelixVerdict(False, f"no rule of {denying} lets it pass", "the end of the tier", chains)
    if allows:
        return FelixVerdict(True, _owner(allows[0], profile), allows[0].text, chains)
    if passed:
        return FelixVerdict(
            True, "a connection that it knows", "none: the map of connections has it", chains[:1]
        )
    return None


def _owner(rule: BpfRule, profile: str) -> str:
    return f"policy {rule.policy}" if rule.policy else profile
