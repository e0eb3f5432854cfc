"""Felix's verdict on a packet, from the iptables rules that the packet met. Pure.

Felix has two chains for each workload endpoint, named after its interface: `cali-fw-` for packets from the
container and `cali-tw-` for packets to it. These call, tier by tier, a chain for each policy that selects the
endpoint (`cali-po-` outbound, `cali-pi-` inbound); policies of one selector have one more chain between
(`cali-go-`, `cali-gi-`). If no policy decides and no tier denies the rest, they call a chain for each of its
profiles (`cali-pro-`, `cali-pri-`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diagnosis.xtables import DROPPED, Step

Direction = Literal["egress", "ingress"]
"""`egress` for packets from a container, `ingress` for packets to it."""

_ENDPOINT_CHAINS = {"egress": "cali-fw-", "ingress": "cali-tw-"}
_POLICY_CHAINS = {"egress": ("cali-po-", "cali-pro-"), "ingress": ("cali-pi-", "cali-pri-")}
_GROUP_CHAINS = {"egress": "cali-go-", "ingress": "cali-gi-"}
_DISPATCH_CHAINS = {"egress": "cali-from-wl-dispatch", "ingress": "cali-to-wl-dispatch"}
# The hash by which Felix recognizes its rules, and the options that every rule has.
_NOISE = re.compile(r'^-4 -t \S+ | -m comment --comment "?cali:[^" ]+"?')
_CALL = re.compile(r"-[jg] (cali-\S+)$")
_START_OF_TIER = re.compile(r'--comment "Start of tier ')
_COMMENT = re.compile(r'--comment "([^"]+)"')


@dataclass(frozen=True)
class FelixVerdict:
    """The verdict for one container in one direction."""

    passes: bool
    by: str
    """The deciding policy or profile, or the reason if none decided."""
    rule: str
    """The deciding rule, as iptables or Felix lists it."""
    chains: tuple[str, ...]
    """The chains or programs that the packet went through, in order."""


def without_noise(rule: str) -> str:
    """Return a rule without Felix's hash and without what xtables-monitor adds."""
    return _NOISE.sub("", rule)


def verdict_by_rules(
    steps: Sequence[Step], direction: Direction, names: Mapping[str, str]
) -> FelixVerdict | None:
    """Return the verdict of Felix's chains; None if the packet met none of them.

    Args:
        steps: The rules that the packet met on the host.
        direction: Of the packet.
        names: The policy or profile by chain.
    """
    policy_chains = _POLICY_CHAINS[direction]
    prefixes = (
        _ENDPOINT_CHAINS[direction],
        _GROUP_CHAINS[direction],
        *policy_chains,
        _DISPATCH_CHAINS[direction],
    )
    met = [step for step in steps if step.chain.startswith(prefixes)]
    if not met:
        return None
    chains = _visited(met)
    called = [chain for chain in chains if chain.startswith(policy_chains)]
    last = met[-1]
    if last.verdict in DROPPED:
        by, rule = _drop(met, policy_chains, names)
        return FelixVerdict(False, by, rule, chains)
    if not called:
        return FelixVerdict(True, "a connection that it knows", without_noise(last.rule), chains)
    return FelixVerdict(True, names.get(called[-1], called[-1]), _rules(met, called[-1]), chains)


def _visited(met: Sequence[Step]) -> tuple[str, ...]:
    """Return the chains, each once. A call shows a policy's chain even if no rule in it matches."""
    visited = (chain for step in met for chain in (step.chain, *_CALL.findall(step.rule)))
    return tuple(dict.fromkeys(visited))


def _drop(met: Sequence[Step], policy_chains: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, str]:
    """Return what dropped the packet, and the rule."""
    last = met[-1]
    rule = without_noise(last.rule)
    if last.chain.startswith(policy_chains):
        # One rule of Felix marks a packet that a policy denies, and the next one drops it.
        return names.get(last.chain, last.chain), _rules(met, last.chain, newest=2)
    # Earlier tiers have passed it on.
    starts = [index for index, step in enumerate(met) if _START_OF_TIER.search(step.rule)]
    visited = _visited(met[starts[-1] if starts else 0 :])
    if called := [chain for chain in visited if chain.startswith(policy_chains)]:
        return f"no rule of {', '.join(names.get(chain, chain) for chain in called)} lets it pass", rule
    comment = _COMMENT.search(rule)
    return comment[1] if comment else rule, rule


def _rules(met: Sequence[Step], chain: str, newest: int = 0) -> str:
    """Join the rules of a chain that the packet met: all, or the newest ones."""
    rules = [without_noise(step.rule) for step in met if step.chain == chain]
    return "; then ".join(rules[-newest:])
