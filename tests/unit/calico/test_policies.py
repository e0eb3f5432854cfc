"""Network policies: the language, what Calico is told, and what would cut the proxy from the notebook."""

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
from components.calico.policies import Connection, Names, cut_off, render_policies
from components.calico.policy import Policy
from components.shared.policy_values import PolicyError

CASES = Path(__file__).parent / "cases"
NAMES = Names(
    services=("notebook", "sshBox"),
    hosts=("a0", "a1", "a2"),
    proxy="a2",
    others={"visitor": ["172.16.6.66"], "operator": ["172.16.6.1"]},
)
GUARD = json.loads((CASES / "guard.json").read_text())


def policies_of(values: Any) -> dict[str, Policy]:  # noqa: ANN401 - what the config file holds
    return CalicoConfig.model_validate({"policies": values}).policies


@pytest.mark.parametrize("case", sorted((CASES / "policies").glob("*.json")), ids=lambda path: path.stem)
def test_policies_become_those_of_the_files(case: Path) -> None:
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
def test_a_wrong_policy_is_refused(case: Path) -> None:
    spec = json.loads(case.read_text())
    with pytest.raises(ValidationError) as refused:
        policies_of({"p": spec["policy"]})
    assert spec["message"] in str(refused.value)


@pytest.mark.parametrize("enabled", [True, False])
def test_names_that_stand_for_nothing_are_all_reported(enabled: bool) -> None:
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
def test_the_guard_names_the_rule_that_cuts_the_proxy_off(case: str) -> None:
    spec = GUARD[case]
    connection = Connection(
        labels={"calico-lab.service": "notebook", "org.projectcalico.pool": "netv"},
        source_labels={"calico-lab.host": "a2"},
        source=[IPv4Network("192.168.0.0/16" if spec.get("tunnel") else "172.16.6.231")],
        destination=IPv4Network("192.168.0.100"),
        protocol="tcp",
        port=8888,
    )
    cut = cut_off(policies_of(spec["policies"]), NAMES, connection, "the proxy")
    assert [problem.partition(": cuts the proxy. ")[0] for problem in cut] == spec["cut"]


PLACES = st.lists(
    st.sampled_from(
        ["notebook", "proxy", "a0", "visitor", "10.0.0.0/8", "192.168.0.1", "role == 'x'", "all()"]
    )
)


@settings(deadline=None)
@given(
    PLACES, PLACES, st.sampled_from(["allow", "deny", "log", "pass"]), st.sampled_from([None, "tcp", "icmp"])
)
def test_every_place_is_in_one_of_calicos_rules_and_never_two_kinds_in_one(
    source: list[str], destination: list[str], action: str, protocol: str | None
) -> None:
    rule = {"action": action, "source": source, "destination": destination, "protocol": protocol}
    policies = policies_of({"p": {"appliesTo": "all()", "ingress": [rule]}})
    text = render_policies(policies, NAMES)["p"]
    assert "&id" not in text
    rules = yaml.safe_load(text)["spec"]["ingress"]
    assert 1 <= len(rules) <= 4
    for side, places in (("source", source), ("destination", destination)):
        sides = [one.get(side, {}) for one in rules]
        assert all(len(one) <= 1 for one in sides)
        # Without places, everything; with some, never everything.
        assert all(bool(one) == bool(places) for one in sides)
    for one in rules:
        assert one["action"] == action.title()
        assert one.get("protocol") == (protocol.upper() if protocol else None)
