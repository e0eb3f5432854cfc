"""Attached: refuses a `destroy` while containers that are not the lab's run on the network.

Docker would say only that the network has active endpoints, after a long wait. Changes of a lab that is up
are checked at the preview, by `components.calico.settings`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pulumi import Output, ResourceOptions, dynamic

from components.hosts.host import Host
from components.hosts.remote import HostError, messages_without_traceback, run
from components.shared.provider import differ

SECONDS = 30
"""How long a host may take to answer."""
COMPARED = ("script", "network", "hosts")
_SCRIPT = Path(__file__).with_name("scripts") / "attached.sh"


def refusals(props: Mapping[str, Any]) -> list[str]:
    """The hosts on which other containers run on the network, a sentence each.

    A host that does not answer has none: it may be gone, and what has to be undone on it says so.
    """

    def ask(host: str) -> str:
        variables = {"HOST": host, "NETWORK": props["network"]}
        answer = run(props["ssh"][host], props["script"], variables, SECONDS)
        return answer.error if answer.status and answer.reached else ""

    with ThreadPoolExecutor(max_workers=max(1, len(props["hosts"]))) as pool:
        return [said for said in pool.map(ask, props["hosts"]) if said]


class _AttachedProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("attached", dict(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(COMPARED, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(dict(news))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        if said := refusals(props):
            with messages_without_traceback():
                raise HostError("\n".join(said))


class Attached(dynamic.Resource, module="calico-lab", name="Attached"):
    """What runs on the network, asked before the network is deleted."""

    def __init__(
        self, name: str, network: str, hosts: Sequence[Host], opts: ResourceOptions | None = None
    ) -> None:
        """Ask at deletion.

        Args:
            name: The resource's name.
            network: The Docker network's name.
            hosts: The hosts that it is on.
            opts: More resource options; it depends on the networks.
        """
        asked = [host for host in hosts if not host.lost]
        props = {
            "script": _SCRIPT.read_text(),
            "network": network,
            "hosts": [host.name for host in asked],
            "ssh": Output.all(**{host.name: host.ssh for host in asked}),
        }
        ready = [resource for host in asked for resource in host.ready]
        super().__init__(
            _AttachedProvider(), name, props, ResourceOptions.merge(ResourceOptions(depends_on=ready), opts)
        )
