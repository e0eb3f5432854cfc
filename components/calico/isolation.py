"""Renders the isolation of students: one GlobalNetworkPolicy in a tier before the policies of the config.

Pure. The tier is read before Calico's tier `default`, which has `network.policies`. What its policy does not
deny goes on to that tier, so the policies of the config keep their meaning for every other flow.

A student's container reaches everything but other students' containers, and only the proxy's hosts reach its
Jupyter server. That holds from a container's first packet on, because an open connection stays open:

- Docker reports a container only after its start, so the driver marks a new endpoint until it has the
  container's labels. Such an endpoint is treated like a student's.
- The other containers are passed as such, and the rest of the network's addresses are denied. So an endpoint
  that has not come through etcd yet is not open to students on another host.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from components.calico.policy_rendering import selected_host, to_yaml

ROLE_LABEL = "calico-lab.role"
"""Label of an endpoint; the role `STUDENT` isolates it."""
STUDENT = "student"
STARTING_LABEL = "org.projectcalico.docker/starting"
"""Label of an endpoint whose container's labels are not known yet (docker-driver/workload)."""
STUDENTS = f"{ROLE_LABEL} == '{STUDENT}' || has({STARTING_LABEL})"
OTHERS = f"{ROLE_LABEL} != '{STUDENT}' && !has({STARTING_LABEL})"
TIER = "calico-lab"
POLICY = f"{TIER}.students"
"""The policy's name; Calico requires the tier's name before the dot."""
_TIER_ORDER = 100
"""Calico's tier `default` has 1,000,000."""


@dataclass(frozen=True)
class Isolation:
    """The isolation of students."""

    proxies: Sequence[str]
    """The hosts that run the proxy."""
    port: int
    """The TCP port of students' Jupyter servers."""


def render_isolation(isolation: Isolation, cidr: IPv4Network) -> str:
    """Render the tier and its policy as YAML for `calicoctl apply`.

    Args:
        isolation: The isolation.
        cidr: The addresses of the network.
    """
    return "---\n".join(to_yaml(document) for document in (_tier(), _policy(isolation, cidr)))


def _tier() -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Tier",
        "metadata": {"name": TIER},
        "spec": {"order": _TIER_ORDER, "defaultAction": "Pass"},
    }


def _policy(isolation: Isolation, cidr: IPv4Network) -> dict[str, Any]:
    from_proxies = [
        {"action": "Pass", "source": {"selector": selected_host(host)}} for host in isolation.proxies
    ]
    to_server = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [isolation.port]}}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "tier": TIER,
            "selector": STUDENTS,
            "types": ["Ingress", "Egress"],
            "ingress": [*from_proxies, to_server, *_apart("source", cidr)],
            "egress": [*_apart("destination", cidr)],
        },
    }


def _apart(side: str, cidr: IPv4Network) -> Iterator[dict[str, Any]]:
    """The rules that deny students, on any network, and what is not known on this one."""
    yield {"action": "Deny", side: {"selector": STUDENTS}}
    yield {"action": "Pass", side: {"selector": OTHERS}}
    yield {"action": "Deny", side: {"nets": [str(cidr)]}}
