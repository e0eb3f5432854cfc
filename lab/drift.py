"""Whether each host still has the firewall rules that were applied to it, and what each rule has met.

What was applied stands in the stack's state, as the kernel listed it right after loading. A host to which
nothing was applied has to have nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.firewall.drift import drift_of_host
from components.firewall.payload import SCRIPT
from components.hosts import remote
from diagnosis.explanation import Counter, path_of, read_counters
from workspace.outputs import PROJECT, Outputs

_COUNTERS = PROJECT / "diagnosis" / "scripts" / "counters.sh"
# A change that is being applied holds the lock for some time.
SECONDS = 90


@dataclass(frozen=True)
class HostRules:
    """The lab's firewall rules on one host."""

    host: str
    policies: Sequence[str] = ()
    """What was applied."""
    drift: Sequence[str] = ()
    """What differs, a line for each rule and each member of a set that is gone or was found."""
    counters: Sequence[Counter] = field(default_factory=list)
    """What each rule on the host has met since it was loaded."""
    error: str = ""
    """Why the host has no answer."""

    @property
    def sound(self) -> bool:
        """Whether the host was seen to have what was applied."""
        return not self.error and not self.drift


def look(outputs: Outputs, applied: Sequence[Mapping[str, Any]]) -> list[HostRules]:
    """Ask every host.

    Args:
        outputs: The stack's outputs.
        applied: The outputs of the stack's HostFirewall resources.
    """
    script = "\n".join(["set -- show", SCRIPT.read_text(), _COUNTERS.read_text()])
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    return read(remote.ask(ssh, script, {}, SECONDS), applied)


def read(answers: Mapping[str, remote.Answer], applied: Sequence[Mapping[str, Any]]) -> list[HostRules]:
    """Compare what the hosts printed with what was applied."""
    by_host = {firewall["host"]: firewall for firewall in applied}
    return [_compare(host, said, by_host.get(host, {})) for host, said in answers.items()]


def _compare(host: str, said: remote.Answer, firewall: Mapping[str, Any]) -> HostRules:
    policies = firewall.get("policies", [])
    if said.status != 0:
        return HostRules(host, policies, error=said.error or f"exit status {said.status}")
    shown, whole, counted = said.text.partition("[counters]")
    if not whole:
        return HostRules(host, policies, error="the answer broke off")
    drift = drift_of_host(firewall.get("loaded") or {}, firewall.get("sets") or {}, shown)
    return HostRules(host, policies, drift, read_counters(counted))


def text(hosts: Sequence[HostRules], stack: str) -> Iterator[str]:
    """The comparison for people, a line at a time."""
    for rules in hosts:
        applied = ", ".join(rules.policies) or "no policy"
        if rules.error:
            yield f"{rules.host}: firewall: show: {rules.error}"
        elif rules.drift:
            yield f"{rules.host}: differs from what was applied ({applied}):"
        else:
            yield f"{rules.host}: as applied ({applied})"
        for line in rules.drift:
            path = path_of(line)
            yield f"    {line}" + (f" ({path})" if path else "")
        if rules.counters:
            yield f"    {'packets':>10} {'bytes':>14}  rule"
        for counter in rules.counters:
            yield f"    {counter.packets:>10} {counter.bytes:>14}  {counter.program} {counter.rule}"
    drifted = [rules for rules in hosts if rules.drift]
    if any(rules.policies for rules in drifted):
        yield f"next: pulumi up --refresh --stack {stack} loads again what was applied"
    # No resource of the stack looks after these.
    if strangers := [rules.host for rules in drifted if not rules.policies]:
        yield f"next: remove by hand what was found on {', '.join(strangers)}, where nothing was applied"
    if any(rules.error for rules in hosts):
        yield f"next: lab --stack {stack} status, for the hosts without an answer"


def document(hosts: Sequence[HostRules]) -> dict[str, Any]:
    """The comparison for machines."""
    return {
        "drift": any(rules.drift for rules in hosts),
        "hosts": [
            {
                "name": rules.host,
                "policies": list(rules.policies),
                "drift": [{"line": line, "path": path_of(line)} for line in rules.drift],
                "counters": [
                    {
                        "program": counter.program,
                        "rule": counter.rule,
                        "path": counter.path,
                        "packets": counter.packets,
                        "bytes": counter.bytes,
                    }
                    for counter in rules.counters
                ],
                "error": rules.error or None,
            }
            for rules in hosts
        ],
    }
