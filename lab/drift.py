"""`lab drift`: compares each host's firewall rules with what was applied, and prints their counters.

The stack's state has the applied rules, as the kernel listed them right after loading. A host to which
nothing was applied should have no rules of the lab.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from components.firewall.drift import drift_of_host
from components.firewall.payload import SCRIPT
from components.hosts import remote
from diagnosis.packet_scripts import COUNTERS_SCRIPT
from diagnosis.xtables import Counter, config_path, parse_counters
from lab.verb import json_option, print_json, print_lines, read_outputs, usage_errors
from workspace import outputs as stack
from workspace.outputs import Outputs

SECONDS = 90
"""How long a host may take: a firewall change that is being applied holds the lock."""


@click.command("drift")
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Compare the firewall rules on each host with what was applied, rule by rule, and print their counters.

    Exit 1 when a host differs, or does not answer. It repairs nothing: `pulumi up --refresh` does.
    """
    outputs = read_outputs(context.obj)
    with usage_errors():
        applied = stack.resources(context.obj, "HostFirewall")
    hosts = look(outputs, applied)
    if as_json:
        print_json(document(hosts))
    else:
        print_lines(text(hosts, context.obj))
    context.exit(0 if all(rules.sound for rules in hosts) else 1)


@dataclass(frozen=True)
class HostRules:
    """The lab's firewall rules on one host."""

    host: str
    policies: Sequence[str] = ()
    """The applied policies."""
    drift: Sequence[str] = ()
    """Differences, a line for each rule and each element of a set that is missing or was found."""
    counters: Sequence[Counter] = ()
    """Counters of each rule."""
    error: str = ""
    """Why there is no answer."""

    @property
    def sound(self) -> bool:
        """Whether the host has exactly what was applied."""
        return not self.error and not self.drift


def look(outputs: Outputs, applied: Sequence[Mapping[str, Any]]) -> list[HostRules]:
    """Ask all hosts.

    Args:
        outputs: The stack's outputs.
        applied: The outputs of the stack's HostFirewall resources.
    """
    script = "\n".join(["set -- show", SCRIPT.read_text(), COUNTERS_SCRIPT.read_text()])
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    answers = remote.ask(ssh, script, {}, SECONDS)
    by_host = {firewall["host"]: firewall for firewall in applied}
    return [_compare(host, answer, by_host.get(host, {})) for host, answer in answers.items()]


def _compare(host: str, answer: remote.Answer, firewall: Mapping[str, Any]) -> HostRules:
    policies = firewall.get("policies", [])
    if answer.status != 0:
        return HostRules(host, policies, error=answer.error or f"exit status {answer.status}")
    shown, complete, counted = answer.text.partition("[counters]")
    if not complete:
        return HostRules(host, policies, error="the answer broke off")
    drift = drift_of_host(firewall.get("loaded") or {}, firewall.get("sets") or {}, shown)
    return HostRules(host, policies, drift, parse_counters(counted))


def text(hosts: Sequence[HostRules], stack_name: str) -> Iterator[str]:
    """Format the comparison as text."""
    for rules in hosts:
        applied = ", ".join(rules.policies) or "no policy"
        if rules.error:
            yield f"{rules.host}: firewall: show: {rules.error}"
        elif rules.drift:
            yield f"{rules.host}: differs from what was applied ({applied}):"
        else:
            yield f"{rules.host}: as applied ({applied})"
        for line in rules.drift:
            path = config_path(line)
            yield f"    {line}" + (f" ({path})" if path else "")
        if rules.counters:
            yield f"    {'packets':>10} {'bytes':>14}  rule"
        for counter in rules.counters:
            yield f"    {counter.packets:>10} {counter.bytes:>14}  {counter.program} {counter.rule}"
    drifted = [rules for rules in hosts if rules.drift]
    if any(rules.policies for rules in drifted):
        yield f"next: pulumi up --refresh --stack {stack_name} loads again what was applied"
    # The stack has no resource for these hosts, so `up` does not repair them.
    if unmanaged := [rules.host for rules in drifted if not rules.policies]:
        yield f"next: remove by hand what was found on {', '.join(unmanaged)}, where nothing was applied"
    if any(rules.error for rules in hosts):
        yield f"next: lab --stack {stack_name} status, for the hosts without an answer"


def document(hosts: Sequence[HostRules]) -> dict[str, Any]:
    """Return the comparison for programs."""
    return {
        "drift": any(rules.drift for rules in hosts),
        "hosts": [
            {
                "name": rules.host,
                "policies": list(rules.policies),
                "drift": [{"line": line, "path": config_path(line)} for line in rules.drift],
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
