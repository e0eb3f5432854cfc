"""MembersProvider: the readiness gate of etcd; it first brings the cluster to the config's members."""

from collections.abc import Mapping
from typing import Any

from components.etcd.convergence import Convergence, Lab, NotJoinedError
from components.hosts.remote import HostError
from components.readiness.gate import GateProvider, explained, wait

ROUNDS = 10
"""How often unhealthy members are waited for before the next step."""


class MembersProvider(GateProvider):
    """Takes the steps, and waits until all members are healthy."""

    def wait(self, props: Mapping[str, Any]) -> dict[str, Any]:
        """Take the steps and wait.

        Raises:
            HostError: A step has failed, or a member is not healthy in time.
        """
        settings = props["settings"]
        lab = Lab(
            {host: props["ssh"][host] for host in settings["asked"]},
            settings["members"],
            settings["peer_urls"],
            int(settings["client_port"]),
            settings["token"],
            settings["identity"],
        )
        checks = {check["host"]: check for check in props["checks"]}
        for _ in range(ROUNDS):
            try:
                unhealthy = Convergence(lab).run()
            except NotJoinedError as error:
                raise HostError(explained([(str(error), checks[error.host])], props)) from None
            if not unhealthy:
                return wait(props)
            wait({**props, "checks": [checks[host] for host in unhealthy]})
        raise HostError(
            f"etcd: members that were healthy a moment ago are not: {', '.join(unhealthy)}; next: see "
            "'journalctl -u calico-lab-etcd' there, then run 'pulumi up' again, which goes on from here"
        )
