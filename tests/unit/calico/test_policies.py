"""Network policies: their config, their rendering for Calico, and the guard of the proxy's connection."""

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.calico.config import CalicoConfig
from components.calico.policy_config import Policy
from components.calico.policy_guard import Connection, guard_connection
from components.calico.policy_rendering import Names, render_policies
from components.shared.policy_values import PolicyError

CASES = Path(__file__).parent / "cases"
NAMES = Names(
    services=("notebook", "sshBox"),
    hosts=("a0", "a1", "a2"),
    proxies=("a2",),
    others={"visitor": ["172.16.6.66"], "operator": ["172.16.6.1"]},
)
GUARD = json.loads((CASES / "guard.json").read_text())


def policies_of(values: Any) -> dict[str, Policy]:  # noqa: ANN401 - any value of the config file
    return CalicoConfig.model_validate({"policies": values}).policies


@pytest.mark.parametrize("case", sorted((CASES / "policies").glob("*.json")), ids=lambda path: path.stem)
def test_render_policies(case: Path) -> None:
    spec = json.loads(case.read_text())
    rendered = render_policies(policies_of(spec["policies"]), NAMES)
    documents = {name: yaml.safe_load(text) for name, text in rendered.items()}
    assert {name: document["spec"] for name, document in documents.items()} == spec["rendered"]
    for name, document in documents.items():
        assert document["kind"] == "GlobalNetworkPolicy"
        assert document["metadata"] == {"name": name}


@pytest.mark.parametrize(
    "case", sorted((CASES / "policies-refused").glob("*.json")), ids=lambda path: path.stem
)
def test_policy_config_refuses(case: Path) -> None:
    spec = json.loads(case.read_text())
    with pytest.raises(ValidationError) as refused:
        policies_of({"p": spec["policy"]})
    assert spec["message"] in str(refused.value)


@pytest.mark.parametrize("enabled", [True, False])
def test_render_policies_reports_every_unknown_name(enabled: bool) -> None:
    policies = policies_of(
        {
            "p": {
                "enabled": enabled,
                "appliesTo": "proxy",
                "ingress": [{"action": "allow", "source": ["a0", "a9"]}],
                "egress": [{"action": "deny"}, {"action": "deny", "destination": "notebok"}],
            }
        }
    )
    with pytest.raises(PolicyError) as refused:
        render_policies(policies, NAMES)
    known = "is not known; names are notebook, sshBox, proxy, a0, a1, a2, visitor, operator"
    assert refused.value.problems == [
        "network.policies.p.appliesTo: 'proxy': is not a service on the network; they are notebook, sshBox; "
        "others are chosen by a selector such as role == 'web'",
        f"network.policies.p.ingress[0].source: 'a9': {known}",
        f"network.policies.p.egress[1].destination: 'notebok': {known}",
    ]


@pytest.mark.parametrize("case", GUARD)
def test_guard_connection_names_the_rule_that_blocks(case: str) -> None:
    spec = GUARD[case]
    connection = Connection(
        labels={"calico-lab.service": "notebook", "org.projectcalico.pool": "netv"},
        source_labels={"calico-lab.host": "a2"},
        source=[IPv4Network("192.168.0.0/16" if spec.get("tunnel") else "172.16.6.231")],
        destination=IPv4Network("192.168.0.100"),
        protocol="tcp",
        port=8888,
    )
    problems = guard_connection(policies_of(spec["policies"]), NAMES, connection, "the proxy")
    assert [problem.partition(": cuts the proxy. ")[0] for problem in problems] == spec["cut"]


ENTITIES = st.lists(
    st.sampled_from(
        ["notebook", "proxy", "a0", "visitor", "10.0.0.0/8", "192.168.0.1", "role == 'x'", "all()"]
    )
)


@settings(deadline=None)
@given(
    ENTITIES,
    ENTITIES,
    st.sampled_from(["allow", "deny", "log", "pass"]),
    st.sampled_from([None, "tcp", "icmp"]),
)
def test_render_policies_never_mixes_networks_and_selectors_in_one_rule(
    source: list[str], destination: list[str], action: str, protocol: str | None
) -> None:
    rule = {"action": action, "source": source, "destination": destination, "protocol": protocol}
    policies = policies_of({"p": {"appliesTo": "all()", "ingress": [rule]}})
    text = render_policies(policies, NAMES)["p"]
    assert "&id" not in text
    rules = yaml.safe_load(text)["spec"]["ingress"]
    assert 1 <= len(rules) <= 4
    for side, entities in (("source", source), ("destination", destination)):
        sides = [one.get(side, {}) for one in rules]
        assert all(len(one) <= 1 for one in sides)
        # Only a rule without entities matches everything.
        assert all(bool(one) == bool(entities) for one in sides)
    for one in rules:
        assert one["action"] == action.title()
        assert one.get("protocol") == (protocol.upper() if protocol else None)
