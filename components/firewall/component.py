"""FirewallPolicy: firewall rules for the lab's hosts that cannot lock the operator out.

A policy passes these modules in order: `rules/config.py` reads it, `rules/resolve.py` resolves names to
addresses, `rules/guard.py` refuses it if it blocks a flow that must stay open (by `rules/evaluate.py`),
`rules/compile.py` compiles it for iptables, and `host_firewall.py` is the resource that loads it on a host.
"""

from collections.abc import Mapping, Sequence

from pulumi import ComponentResource, Output, ResourceOptions, RunError

from components.firewall.host_firewall import HostFirewall, inputs
from components.firewall.rules.compile import compile_policies
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.guard import RequiredFlow, guard_policies
from components.firewall.rules.lab_hosts import LabHosts
from components.hosts.host import Host
from components.shared.policy_values import PolicyError
from diagnosis.reachability import probes_of


class FirewallPolicy(ComponentResource):
    """The active policies of every host. A host without one has no resource, and no rules."""

    active: Output[dict[str, list[str]]]
    """The names of the active policies by host, in the order of evaluation."""

    def __init__(
        self,
        name: str,
        config: FirewallConfig,
        *,
        lab: LabHosts,
        flows: Sequence[RequiredFlow],
        hosts: Mapping[str, Host],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Apply the policies.

        Args:
            name: The component's name.
            config: The section `firewall`.
            lab: The hosts that rules can name, and the operator's addresses.
            flows: The flows that must stay open.
            hosts: The lab's hosts by name.
            opts: More resource options.
        """
        try:
            by_host = guard_policies(config, lab, flows)
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
                    machine=host.replaced_with,
                    ssh_config=host.ssh_config,
                    compiled=compile_policies(policies),
                    operator=[str(address) for address in lab.operator],
                    probes=probes_of(host_name, lab, flows),
                    addresses={name: host.address for name, host in lab.hosts.items()},
                    undo_seconds=config.undo_seconds,
                    allow_lockout=any(policy.policy.allow_lockout for policy in policies),
                ),
                host.options(ResourceOptions(parent=self)),
            )
        names = {host: [policy.name for policy in policies] for host, policies in by_host.items()}
        self.active = Output.from_input(names)
        self.register_outputs({"active": self.active})
