"""What Felix decided on a packet, from the rules that it met. Pure.

Felix has two chains for each container, with the name of its interface: `cali-fw-` for what it sends and
`cali-tw-` for what it gets. They call one chain for each policy that selects the container (`cali-po-`,
`cali-pi-`), and where none does, one for each of its profiles (`cali-pro-`, `cali-pri-`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diagnosis.explanation import ENDS, Step

Direction = Literal["egress", "ingress"]

_OWN = {"egress": "cali-fw-", "ingress": "cali-tw-"}
_OF_POLICIES = {"egress": ("cali-po-", "cali-pro-"), "ingress": ("cali-pi-", "cali-pri-")}
_DISPATCH = {"egress": "cali-from-wl-dispatch", "ingress": "cali-to-wl-dispatch"}
# What Felix wants to find again, and what every rule has in common.
_NOISE = re.compile(r'^-4 -t \S+ | -m comment --comment "?cali:[^" ]+"?')
_CALLS = re.compile(r"-[jg] (cali-\S+)$")
_COMMENT = re.compile(r'--comment "([^"]+)"')


@dataclass(frozen=True)
class Decision:
    """What Felix decided for one container in one direction."""

    passes: bool
    by: str
    """The policy or profile that decided, or why none did."""
    rule: str
    """The rule, as iptables lists it."""
    chains: tuple[str, ...]
    """The chains that the packet went through, the first one first."""


def plain(rule: str) -> str:
    """A rule without the marks that Felix puts on its rules, and without what xtables-monitor adds."""
    return _NOISE.sub("", rule)


def decision(steps: Sequence[Step], direction: Direction, names: Mapping[str, str]) -> Decision | None:
    """Find what Felix decided; None where it was not asked.

    Args:
        steps: The rules that the packet met on the host.
        direction: `egress` for what a container sends, `ingress` for what it gets.
        names: The policy or profile that each chain is of.
    """
    own, of_policies = _OWN[direction], _OF_POLICIES[direction]
    met = [step for step in steps if step.chain.startswith((own, *of_policies, _DISPATCH[direction]))]
    if not met:
        return None
    # A policy without a rule for the packet is called all the same.
    ways = (chain for step in met for chain in (step.chain, *_CALLS.findall(step.rule)))
    chains = tuple(dict.fromkeys(ways))
    asked = [chain for chain in chains if chain.startswith(of_policies)]
    called = [names.get(chain, chain) for chain in asked]
    last = met[-1]
    passes = last.verdict not in ENDS
    decisive = [step for step in met if step.chain == (asked[-1] if passes and asked else last.chain)]
    if last.chain in asked or (passes and asked):
        by = names.get(decisive[-1].chain, decisive[-1].chain) if decisive else called[-1]
        # Felix marks what a policy denies, and drops what is marked.
        rule = "; then ".join(plain(step.rule) for step in (decisive if passes else decisive[-2:]))
        return Decision(passes, by, rule, chains)
    rule = plain(last.rule)
    if passes:
        by = "a connection that it knows"
    elif called:
        by = f"no rule of {', '.join(called)} lets it pass"
    else:
        by = (_COMMENT.search(rule) or [rule, rule])[1]
    return Decision(passes, by, rule, chains)
