"""What Felix' programs in the kernel decided on a packet, by their counts before it and after it. Pure.

A policy is compiled to a program at the host's end of a container's veth pair, and Felix keeps what it has
made of each rule, with the number of packets that the rule has decided on (`calico-node -bpf policy dump`).
What no rule lets pass is counted with all that policies drop (`calico-node -bpf counters dump`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from diagnosis.trace.felix import Decision, Direction

# What goes out by the host's end goes in to the container.
_HOOKS: Mapping[str, Direction] = {"tc ingress": "egress", "tc egress": "ingress"}
_NAME = re.compile(r"IfaceName: (?P<name>\S+)")
_HOOK = re.compile(r"Hook: (?P<hook>.*)")
_POLICY = re.compile(r"// (?P<edge>Start|End) of policy (?P<name>\S+)")
_RULE = re.compile(r'// Start of rule (?P<text>.*?)\s*rule_id:"(?P<id>[^"]+)"')
_COUNT = re.compile(r"// count = (?P<count>\d+)")
_KNOWN = re.compile(r"\s*(?P<network>[\d.]+/\d+): (?P<what>.+)")
_NEXT_HOST = re.compile(r"\bnh (\S+)")
_ACTION = re.compile(r'action:"(?P<action>\w+)"')


@dataclass(frozen=True)
class Rule:
    """A rule of a policy, or of a profile."""

    policy: str
    """Its policy's name; empty where it is a profile's."""
    text: str
    """The rule as Felix writes it."""
    count: int
    """How many packets it has decided on."""

    @property
    def action(self) -> str:
        """What it does: `allow`, `deny`, `pass` or `log`."""
        found = _ACTION.search(self.text)
        return found["action"] if found else ""


@dataclass(frozen=True)
class Program:
    """What decides on a container's packets in one direction."""

    interface: str
    hook: str
    policies: Sequence[str]
    """The names of those that select the container."""
    rules: Sequence[Rule]
    dropped: int = 0
    """How many packets were dropped by policy, whether or not a rule said so."""

    @property
    def place(self) -> str:
        """Where it hangs."""
        return f"{self.hook} of {self.interface}"


@dataclass(frozen=True)
class Known:
    """What the programs know of addresses: an entry of their map of routes."""

    network: IPv4Network
    what: str
    """`remote workload in-pool nat-out tunneled nh 172.16.6.218`."""

    @property
    def host(self) -> str | None:
        """The address of the host that they are behind."""
        found = _NEXT_HOST.search(self.what)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.network}: {self.what}"


def known(dump: Iterable[str]) -> list[Known]:
    """Read what `calico-node -bpf routes dump` printed."""
    return [
        Known(IPv4Network(found["network"]), found["what"])
        for line in dump
        if (found := _KNOWN.fullmatch(line))
    ]


def read(dump: Iterable[str], dropped: Mapping[Direction, int]) -> Mapping[Direction, Program]:
    """Read a container's programs.

    Args:
        dump: What `calico-node -bpf policy dump` printed of its interface.
        dropped: How many packets were dropped by policy there.
    """
    rules: dict[Direction, list[Rule]] = {}
    policies: dict[Direction, list[str]] = {}
    hooks: dict[Direction, tuple[str, str]] = {}
    name = policy = text = ""
    direction: Direction | None = None
    for line in dump:
        if found := _NAME.match(line):
            name, direction = found["name"], None
        elif (found := _HOOK.match(line)) and (direction := _HOOKS.get(found["hook"])):
            hooks[direction] = name, found["hook"]
            rules[direction], policies[direction] = [], []
        elif direction is None:
            continue
        elif found := _POLICY.match(line):
            policy = found["name"] if found["edge"] == "Start" else ""
            policies[direction] += [policy] if policy else []
        elif found := _RULE.match(line):
            # Protocol buffers put spaces in their text at random, so that nobody relies on it.
            text = " ".join(found["text"].split())
        elif found := _COUNT.match(line):
            rules[direction].append(Rule(policy, text, int(found["count"])))
    return {each: Program(*hooks[each], policies[each], rules[each], dropped.get(each, 0)) for each in hooks}


def decision(
    before: Program | None, after: Program | None, profiles: Sequence[str], *, came_out: bool
) -> Decision | None:
    """Find what was decided on a packet; None where the program was not asked, or did not say.

    Args:
        before: The program before the packet came to its interface.
        after: The program after that.
        profiles: The container's profiles, which are asked where no policy selects it.
        came_out: Whether the packet was seen behind the program.
    """
    if before is None or after is None:
        return None
    known = {(rule.policy, rule.text): rule.count for rule in before.rules}
    met = [rule for rule in after.rules if rule.count > known.get((rule.policy, rule.text), 0)]
    denies = [rule for rule in met if rule.action == "deny"]
    allows = [rule for rule in met if rule.action == "allow"]
    profile = f"profile {', '.join(profiles)}"
    asked = [f"policy {name}" for name in after.policies] or [profile]
    chains = (after.place, *asked)
    if denies and not came_out:
        return Decision(False, _owner(denies[0], profile), denies[0].text, chains)
    if not came_out and after.dropped > before.dropped:
        return Decision(False, f"no rule of {', '.join(asked)} lets it pass", "the end of the tier", chains)
    if allows:
        return Decision(True, _owner(allows[0], profile), allows[0].text, chains)
    if came_out:
        return Decision(True, "a connection that it knows", "none: the map of connections has it", chains[:1])
    return None


def _owner(rule: Rule, profile: str) -> str:
    return f"policy {rule.policy}" if rule.policy else profile
