"""The config, the compiler and the guard, by tables; each case is a file."""

import pytest
from pydantic import ValidationError

from components.calico.config import CalicoConfig
from components.calico.flows import required_flows as calico_flows
from components.etcd.config import EtcdConfig
from components.etcd.rendering import required_flows as etcd_flows
from components.firewall.rules.compile import Compiled, compile_policies, restore_document
from components.firewall.rules.config import FirewallConfig, Policy, RateLimit, Rule
from components.firewall.rules.guard import guard_policies, required_flows
from components.firewall.rules.resolve import resolve
from components.shared.policy_values import PolicyError
from tests.unit.firewall.firewall_cases import LAB, case, config, names


@pytest.mark.parametrize("name", names("invalid"))
def test_resolve_refuses(name: str) -> None:
    document = case("invalid", name)
    try:
        resolve(config(document), LAB)
        messages = []
    except ValidationError as error:
        messages = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors()
        ]
    except PolicyError as error:
        messages = error.problems
    assert messages == document["messages"]


@pytest.mark.parametrize("name", names("compile"))
def test_compile_policies(name: str) -> None:
    document = case("compile", name)
    compiled = compile_policies(resolve(config(document), LAB).get("a0", ()))
    assert {
        "ipv4": restore_document(compiled.ipv4, compiled.policies).splitlines(),
        "ipv6": restore_document(compiled.ipv6, compiled.policies).splitlines(),
        "sets": {key: members.splitlines() for key, members in compiled.sets.items()},
    } == {key: document[key] for key in ("ipv4", "ipv6", "sets")}


@pytest.mark.parametrize("name", names("guard"))
def test_guard_policies(name: str) -> None:
    document = case("guard", name)
    hosts = list(LAB.hosts)
    members = EtcdConfig.model_validate({"members": ["a0", "a1"], **document.get("etcd", {})})
    network = CalicoConfig.model_validate(document.get("network", {}))
    between_hosts = [*etcd_flows(members, network.hosts or hosts), *calico_flows(network, hosts)]
    flows = required_flows(LAB, between_hosts, proxies={"a2": 8888})
    advice = " or set allowLockout: true on the policy to apply it anyway"
    try:
        guard_policies(config(document), LAB, flows)
        cuts = []
    except PolicyError as error:
        cuts = [
            problem.removesuffix(advice).removesuffix(". Accept it in an earlier rule,")
            for problem in error.problems
        ]
    assert cuts == document["cuts"]


def test_compile_policies_without_a_policy() -> None:
    assert compile_policies(()) == Compiled([], {}, {}, {})


@pytest.mark.parametrize("model", [FirewallConfig, Policy, Rule, RateLimit])
def test_config_describes_every_field(model: type[FirewallConfig]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
