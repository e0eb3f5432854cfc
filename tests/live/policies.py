"""Network policies for the nine containers, and the flows that they allow."""

from typing import Any

from tests.live.crowd import Crowd, Reach

# In the config: the two examples, and two for the crowd.
SWITCHED: dict[str, Any] = {
    "network.policies.notebook-from-proxy.enabled": True,
    "network.policies.sshbox-stays-in.enabled": True,
    "network.policies.red-serves-tcp": {
        "appliesTo": "team == 'red'",
        "ingress": [
            {"action": "allow", "protocol": "tcp", "ports": 5000, "source": "team in {'red', 'green'}"}
        ],
    },
    "network.policies.blue-pings": {
        "appliesTo": "team == 'blue'",
        "egress": [{"action": "allow", "protocol": "icmp"}],
    },
}
POLICIES = {"notebook-from-proxy", "sshbox-stays-in", "red-serves-tcp", "blue-pings"}
# By hand, as an operator would: one of the endpoints' namespace.
BY_HAND: dict[str, Any] = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "NetworkPolicy",
    "metadata": {"name": "green-hears-green", "namespace": "libnetwork"},
    "spec": {
        "selector": "team == 'green'",
        "types": ["Ingress"],
        "ingress": [
            {"action": "Deny", "protocol": "UDP", "source": {"selector": "team != 'green'"}},
            {"action": "Allow"},
        ],
    },
}


def allowed(people: Crowd) -> Reach:
    """What the policies say, in the words of this test."""

    def may(one: str, other: str, protocol: str) -> bool:
        sender, target = one.partition("-")[0], other.partition("-")[0]
        if sender == "blue" and protocol != "ping":
            return False
        if target == "red":
            return protocol == "tcp" and sender in ("red", "green")
        return not (target == "green" and protocol == "udp" and sender != "green")

    return frozenset(flow for flow in people.everything if may(*flow))


def differ(found: Reach, expected: Reach) -> str:
    return f"closed: {sorted(expected - found)}; open: {sorted(found - expected)}"


def reaches(people: Crowd, expected: Reach) -> None:
    found = people.reach()
    assert found == expected, differ(found, expected)
