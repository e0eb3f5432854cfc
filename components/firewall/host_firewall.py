"""HostFirewall: the firewall rules of one host, as a resource.

Its inputs are the rules that the host loads, so that a preview shows each rule that changes. It is a dynamic
resource of its own, and not a part of the resource for a component on a host, because it confirms a change
over a new connection (`change.py`). If a change is not confirmed, the update fails and Pulumi keeps the old
properties. The host has the old rules as well, so the next `pulumi up` starts from them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.firewall.change import apply_change, operator_problem, session
from components.firewall.drift import drift_of_host
from components.firewall.payload import program_digest
from components.firewall.rules.compile import Chains, Compiled
from components.hosts.remote import HostError, messages_without_traceback
from components.shared.provider import differ, is_known
from diagnosis.reachability import Probes

PREVIEW_SECONDS = 3
"""How long a preview waits for a host, which may not exist yet."""
COMPARED = ("policies", "ipv4", "ipv6", "sets", "program", "url")
"""The inputs that make an update. `url`, because a new connection has to confirm another login or port."""
ASKED_WITH = ("host", "url", "ssh_config", "operator", "allow_lockout")
"""The inputs that `check` needs. If one is unknown at preview, only the update checks."""


def inputs(
    *,
    host: str,
    url: str,
    machine: Input[str],
    ssh_config: Input[str],
    compiled: Compiled,
    operator: Sequence[str],
    probes: Probes,
    addresses: Mapping[str, str],
    undo_seconds: int,
    allow_lockout: bool,
) -> dict[str, Any]:
    """The inputs of a HostFirewall.

    Args:
        host: The host's name.
        url: Its destination for ssh(1).
        machine: Its identity; another one under the same name replaces the resource.
        ssh_config: Path of the ssh_config(5), relative to the project's folder.
        compiled: The rules and sets.
        operator: The operator's addresses, for which the guard has checked the policies.
        probes: The flows to try before a change is confirmed.
        addresses: The addresses of the lab's hosts.
        undo_seconds: Seconds after which the host rolls back a change that is not confirmed.
        allow_lockout: Whether a change is applied without a check of the operator's address and of flows.
    """
    return {
        "host": host,
        "url": url,
        "machine": machine,
        "ssh_config": ssh_config,
        **vars(compiled),
        "operator": list(operator),
        "probes": probes,
        "addresses": dict(addresses),
        "undo_seconds": undo_seconds,
        "allow_lockout": allow_lockout,
        "program": program_digest(),
    }


class HostFirewallProvider(dynamic.ResourceProvider):
    """Applies, reads and removes the firewall of one host."""

    def check(self, olds: Mapping[str, Any], news: dict[str, Any]) -> dynamic.CheckResult:
        """Refuse a wrong operator's address at preview, if the host can be asked."""
        changed = differ(COMPARED, olds, news) and is_known([news[key] for key in ASKED_WITH])
        try:
            problem = operator_problem(session(news), news, PREVIEW_SECONDS) if changed else None
        except HostError:
            problem = None
        failures = [dynamic.CheckFailure("operator", problem)] if problem else []
        return dynamic.CheckResult(news, failures)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        """Load and confirm the rules."""
        with messages_without_traceback():
            return dynamic.CreateResult(f"{props['host']}-firewall", apply_change(props))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        """Load and confirm other rules."""
        with messages_without_traceback():
            return dynamic.UpdateResult(apply_change(news))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        """Compare the rules and how the host is reached. A change of the checks alone is no update."""
        replaces = [key for key in ("host", "machine") if olds.get(key) != news.get(key)]
        changed = bool(olds.get("drift")) or differ(COMPARED, olds, news)
        return dynamic.DiffResult(changes=changed or bool(replaces), replaces=replaces)

    def read(self, id_: str, props: Mapping[str, Any]) -> dynamic.ReadResult:
        """Find the drift of the host."""
        with messages_without_traceback():
            output = session(props).run_verb("show")
            drift = drift_of_host(props["loaded"], props["sets"], output)
            return dynamic.ReadResult(id_, {**props, "drift": drift})

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        """Remove every rule, set and file of the firewall from the host."""
        with messages_without_traceback():
            session(props).run_verb("remove")


class HostFirewall(dynamic.Resource, module="calico-lab", name="HostFirewall"):
    """The firewall rules that one host has loaded.

    It is replaced if another `machine` has the host's name, because that one has none of the rules.
    """

    policies: Output[list[str]]
    """The names of the policies, in the order of evaluation."""
    ipv4: Output[Chains]
    """The rules for iptables."""
    ipv6: Output[Chains]
    """The rules for ip6tables."""
    sets: Output[dict[str, str]]
    """The members of each set, one per line."""
    loaded: Output[dict[str, str]]
    """The kernel's listing of the lab's chains right after loading, by family."""
    drift: Output[list[str]]
    """The drift of the host at the last `pulumi refresh`."""

    def __init__(self, name: str, given: Mapping[str, Any], opts: ResourceOptions | None = None) -> None:
        """Declare the firewall of a host, with what `inputs` returns."""
        super().__init__(HostFirewallProvider(), name, {**given, "loaded": None, "drift": None}, opts)
