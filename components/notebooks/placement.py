"""Placement: the hosts of the notebooks.

Owes: no notebook moves because another joined or left. It moves when its host leaves the lab, or may no
longer be used. A new one goes to the host with the most memory that no notebook may use.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pulumi import Output, ResourceOptions, dynamic

from components.hosts.host import after_hosts, ssh_commands
from components.hosts.remote import ask
from components.notebooks.step import SCRIPTS
from components.shared.provider import StoringProvider, is_known

if TYPE_CHECKING:
    from components.hosts.host import Host

ASK_SECONDS = 10
"""How long a host may take to say how much memory it has."""


def spread(
    wanted: Mapping[str, int],
    named: Mapping[str, str],
    former: Mapping[str, str],
    allowed: Sequence[str],
    memory: Mapping[str, int],
) -> dict[str, str]:
    """Choose a host for each notebook.

    Args:
        wanted: The memory of each notebook, MiB, in the order of the config.
        named: The host of each notebook that names one.
        former: The host of each notebook up to now; it stays there while the host is allowed.
        allowed: The hosts that may be chosen.
        memory: The memory of each host that can take another notebook, MiB; at least one.

    Returns:
        The host of each notebook. The first of equal hosts is taken.
    """
    stay = {name: former[name] for name in wanted if former.get(name) in allowed}
    chosen = {**stay, **{name: named[name] for name in wanted if name in named}}
    free = dict(memory)
    for name, host in chosen.items():
        free[host] = free.get(host, 0) - wanted[name]
    for name in wanted:
        if name not in chosen:
            chosen[name] = max(memory, key=free.__getitem__)
            free[chosen[name]] -= wanted[name]
    return {name: chosen[name] for name in wanted}


def memory_of(ssh: Mapping[str, str]) -> dict[str, int]:
    """Ask hosts for their memory, MiB.

    A host that does not answer is left out. Where none answers the lab does not exist yet, and all count as
    equal.
    """
    answers = ask(ssh, (SCRIPTS / "memory.sh").read_text(), {}, ASK_SECONDS)
    found = {host: int(answer.text) for host, answer in answers.items() if not answer.status}
    return found or dict.fromkeys(ssh, 0)


class _PlacementProvider(StoringProvider):
    compared = ("hosts",)

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        """Choose the hosts here, so that a preview knows them."""
        wanted = {name: int(memory) for name, memory in news["wanted"].items()}
        named, allowed = news["named"], news["allowed"]
        former = olds.get("hosts") or {}
        memory: Mapping[str, int] = {}
        if any(name not in named and former.get(name) not in allowed for name in wanted):
            memory = memory_of(news["ssh"]) if is_known(news["ssh"]) else dict.fromkeys(allowed, 0)
        hosts = spread(wanted, named, former, allowed, memory)
        return dynamic.CheckResult({**news, "hosts": hosts}, [])


class Placement(dynamic.Resource, module="calico-lab", name="NotebookPlacement"):
    """The host of each notebook, whether it names one or not."""

    hosts: Output[dict[str, str]]
    """Host by notebook; known at a preview."""

    def __init__(
        self,
        name: str,
        wanted: Mapping[str, int],
        named: Mapping[str, str],
        hosts: Sequence["Host"],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Choose the hosts.

        Args:
            name: The resource's name.
            wanted: The memory of each notebook, MiB.
            named: The host of each notebook that names one. It stays there when it names none any more.
            hosts: The hosts that may be chosen.
            opts: More resource options, usually the parent.
        """
        props = {
            "wanted": dict(wanted),
            "named": dict(named),
            "allowed": [host.name for host in hosts],
            "ssh": ssh_commands(hosts),
            "hosts": None,
        }
        super().__init__(_PlacementProvider(), name, props, after_hosts(hosts, opts))
