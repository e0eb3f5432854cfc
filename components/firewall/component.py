"""FirewallPolicy: firewall rules for the lab's hosts that cannot lock the operator out.

The way of a policy: `policy.py` is the language in the config, `resolve.py` turns names into addresses,
`guard.py` refuses what would cut the lab's own connections, `compile.py` makes the documents that a host
loads, `host_firewall.py` is the resource that loads them, and `reach.py`
tries the lab's own flows before and after. `evaluate.py` says what becomes of a packet.
"""

from collections.abc import Mapping, Sequence

from pulumi import ComponentResource, Input, Output, ResourceOptions, RunError

from components.firewall.host_firewall import HostFirewall, inputs
from components.firewall.rules.compile import compile_policies
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.guard import Flow, guarded
from components.firewall.rules.lab import Lab
from components.hosts.host import Host
from components.shared.policy_values import PolicyError
from diagnosis.reachability import probes_of


class FirewallPolicy(ComponentResource):
    """The active policies of every host; a host without one has no resource here, and nothing on it."""

    active: Output[dict[str, list[str]]]
    """The names of the active policies by host, in the order in which they are read."""

    def __init__(
        self,
        name: str,
        config: FirewallConfig,
        *,
        lab: Lab,
        flows: Sequence[Flow],
        hosts: Mapping[str, Host],
        ssh_config: Input[str],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Apply the policies.

        Args:
            name: The component's name.
            config: The section `firewall`.
            lab: What names in rules stand for.
            flows: What the guard protects.
            hosts: The lab's hosts by name.
            ssh_config: Path, from the project's folder, of the ssh_config(5) by which they are reached.
            opts: More resource options.
        """
        try:
            by_host = guarded(config, lab, flows)
        except PolicyError as error:
            raise RunError(str(error)) from None
        super().__init__("calico-lab:index:FirewallPolicy", name, None, opts)
        for host_name, policies in by_host.items():
            host = hosts[host_name]
            HostFirewall(
                f"{host_name}-firewall",
                inputs(
                    host=host_name,
                    url=host.url,
                    machine=host.anew,
                    ssh_config=ssh_config,
                    compiled=compile_policies(policies),
                    operator=[str(address) for address in lab.operator],
                    probes=probes_of(host_name, lab, flows),
                    addresses={other: machine.address for other, machine in lab.hosts.items()},
                    undo_seconds=config.undo_seconds,
                    allow_lockout=any(policy.policy.allow_lockout for policy in policies),
                ),
                host.options(ResourceOptions(parent=self)),
            )
        names = {host: [policy.name for policy in policies] for host, policies in by_host.items()}
        self.active = Output.from_input(names)
        self.register_outputs({"active": self.active})
