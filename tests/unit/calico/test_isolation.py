"""The isolation of students: the tier, and what its policy's rules select."""

from ipaddress import IPv4Network
from typing import Any

import pytest
import yaml

from components.calico import selector
from components.calico.isolation import POLICY, TIER, Isolation, render_isolation
from components.shared.policy_values import is_name

CIDR = IPv4Network("192.168.0.0/16")
TIER_DOCUMENT, POLICY_DOCUMENT = yaml.safe_load_all(render_isolation(Isolation(["a1", "a2"], 8888), CIDR))
SPEC = POLICY_DOCUMENT["spec"]
STUDENT = {"calico-lab.role": "student", "calico-lab.service": "notebook-alice"}
STARTING = {"org.projectcalico.docker/starting": "true", "org.projectcalico.pool": "netv"}
PROXY = {"calico-lab.host": "a2"}
# Endpoints and hosts that are not students, and an address of the network that is not known yet.
PEERS: dict[str, dict[str, str] | None] = {
    "student": STUDENT,
    "starting": STARTING,
    "proxy": PROXY,
    "host": {"calico-lab.host": "a0"},
    "notebook": {"calico-lab.service": "notebook"},
    "member": {"calico-lab.service": "notebook-teacher"},
    "labelled": {"calico-lab.role": "web"},
    "plain": {},
    "unknown": None,
}


def decision(rules: list[dict[str, Any]], side: str, labels: dict[str, str] | None, port: int) -> str:
    """What the first rule that matches a TCP packet says; the peer is on the network."""
    for rule in rules:
        peer = rule.get(side, {})
        if "selector" in peer and (labels is None or not selector.parse(peer["selector"])(labels)):
            continue
        if rule.get("destination", {}).get("ports", [port]) != [port]:
            continue
        return str(rule["action"])
    return str(TIER_DOCUMENT["spec"]["defaultAction"])


def test_isolation_is_a_policy_in_a_tier_before_the_policies_of_the_config() -> None:
    assert TIER_DOCUMENT["kind"] == "Tier"
    assert TIER_DOCUMENT["metadata"]["name"] == SPEC["tier"] == TIER
    assert TIER_DOCUMENT["spec"] == {"order": 100, "defaultAction": "Pass"}
    assert POLICY_DOCUMENT["metadata"]["name"] == POLICY == f"{TIER}.students"
    assert not is_name(POLICY), "no policy of the config can have its name"


@pytest.mark.parametrize("labels", [STUDENT, STARTING])
def test_isolation_applies_to_students_and_to_endpoints_without_labels_yet(labels: dict[str, str]) -> None:
    assert selector.parse(SPEC["selector"])(labels)


@pytest.mark.parametrize(
    "labels", [labels for labels in PEERS.values() if labels not in (STUDENT, STARTING, None)]
)
def test_isolation_applies_to_nothing_else(labels: dict[str, str]) -> None:
    assert not selector.parse(SPEC["selector"])(labels)


@pytest.mark.parametrize(("peer", "labels"), PEERS.items())
def test_isolation_denies_students_and_what_is_not_known(peer: str, labels: dict[str, str] | None) -> None:
    wanted = "Deny" if peer in ("student", "starting", "unknown") else "Pass"
    assert decision(SPEC["ingress"], "source", labels, 5000) == wanted
    assert decision(SPEC["egress"], "destination", labels, 5000) == wanted
    assert decision(SPEC["egress"], "destination", labels, 8888) == wanted


@pytest.mark.parametrize(("peer", "labels"), PEERS.items())
def test_only_the_proxy_reaches_the_server(peer: str, labels: dict[str, str] | None) -> None:
    wanted = "Pass" if peer == "proxy" else "Deny"
    assert decision(SPEC["ingress"], "source", labels, 8888) == wanted


def test_isolation_denies_the_addresses_of_the_network_alone() -> None:
    for side, direction in (("source", "ingress"), ("destination", "egress")):
        last = SPEC[direction][-1]
        assert last == {"action": "Deny", side: {"nets": [str(CIDR)]}}
