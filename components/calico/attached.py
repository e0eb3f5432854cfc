"""Attached: refuses a `destroy` while containers that are not the lab's run on the network.

Docker would say only that the network has active endpoints, after a long wait. Changes of a lab that is up
are checked at the preview, by `components.calico.settings`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions, dynamic

from components.hosts.host import after_hosts, ssh_commands
from components.hosts.remote import HostError, ask, messages_without_traceback
from components.shared.provider import StoringProvider

if TYPE_CHECKING:
    from components.hosts.host import Host

SECONDS = 30
"""How long a host may take to answer."""
_SCRIPT = Path(__file__).with_name("scripts") / "attached.sh"


def refusals(props: Mapping[str, Any]) -> list[str]:
    """The hosts on which other containers run on the network, a sentence each.

    A host that does not answer has none: it may be gone, and the deletion of what is on it will fail.
    """
    variables = {host: {"HOST": host, "NETWORK": props["network"]} for host in props["ssh"]}
    answers = ask(props["ssh"], props["script"], variables, SECONDS)
    return [answer.error for answer in answers.values() if answer.status and answer.reached]


class _AttachedProvider(StoringProvider):
    compared = ("script", "network", "hosts")

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        if sentences := refusals(props):
            with messages_without_traceback():
                raise HostError("\n".join(sentences))


class Attached(dynamic.Resource, module="calico-lab", name="Attached"):
    """What runs on the network, asked before the network is deleted."""

    def __init__(
        self, name: str, network: str, hosts: Sequence["Host"], opts: ResourceOptions | None = None
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
            "ssh": ssh_commands(asked),
        }
        super().__init__(_AttachedProvider(), name, props, after_hosts(asked, opts))
