"""Hosts that exist already: what is on one is bound to its address, and goes when the address changes."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.preview.program import Program, Registered, config_of, run

ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2"}
Make = Callable[..., Program]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs the program for two hosts, of which `a` is all of etcd; more of `b` is given by name."""
    key = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)

    def made(**b: Any) -> Program:  # noqa: ANN401 - keys of a member
        members = {
            name: {"address": address, "hostKey": f"ssh-ed25519 {name}{name}{name}{name}"}
            for name, address in ADDRESSES.items()
        }
        members["b"].update(b)
        policy = {"hosts": ["a", "b"], "rules": [{"action": "drop", "protocol": "tcp", "ports": 9}]}
        network = config_of("lab")["calico-lab:network"]
        network["policies"] = {"box": {"appliesTo": "sshBox", "egress": []}}
        return run(
            {
                "calico-lab:hosts": {"provider": "existing", "members": members, "privateKey": str(key)},
                "calico-lab:etcd": {"members": ["a"]},
                "calico-lab:network": network,
                "calico-lab:notebook": {"host": "b", "address": "192.168.0.100"},
                "calico-lab:sshBox": {"host": "a", "address": "192.168.0.101"},
                "calico-lab:proxy": {"host": "a"},
                "calico-lab:firewall": {"operator": ["10.0.0.9"], "policies": {"discard": policy}},
            }
        )

    return made


def on(program: Program, host: str) -> dict[str, Registered]:
    """What is on a host."""
    return {
        resource.urn: resource
        for resource in program.resources
        if (resource.type.endswith(":DockerObject") and resource.inputs["host"] == host)
        or (
            resource.name.startswith(f"{host}-")
            and ("command:" in resource.type or resource.type.endswith(":HostFirewall"))
        )
    }


def test_existing_host_with_another_address_replaces_its_resources(make: Make) -> None:
    before, after = make(), make(address="10.0.0.3")
    installed = {"b-calico-programs", "b-calico", "b-firewall", "b-netv"}
    assert installed <= {resource.name for resource in on(before, "b").values()}
    assert set(on(before, "b")) == set(on(after, "b"))
    for urn, resource in on(before, "b").items():
        assert resource.replacement_trigger in ("10.0.0.2", "b (10.0.0.2)"), urn
        assert on(after, "b")[urn].replacement_trigger in ("10.0.0.3", "b (10.0.0.3)"), urn
    for urn, resource in on(before, "a").items():
        assert on(after, "a")[urn].replacement_trigger == resource.replacement_trigger, urn


def test_what_waits_for_a_host_does_it_again_when_its_address_changes(make: Make) -> None:
    before, after = make(), make(address="10.0.0.3")
    for name, key in (("calico-ready", "checks"), ("notebook", "location"), ("notebook-work", "location")):
        assert before.named(name).inputs[key] != after.named(name).inputs[key], name
        assert after.named(name).replacement_trigger is None


def test_another_port_or_login_of_a_host_replaces_nothing(make: Make) -> None:
    triggers = [
        {resource.urn: resource.replacement_trigger for resource in program.resources}
        for program in (make(), make(port=2222, user="ops"))
    ]
    assert triggers[0] == triggers[1]


def test_existing_host_lab_wide_resources_have_no_trigger(make: Make) -> None:
    for name in ("calico-datastore", "calico-hosts", "network-policy-box"):
        assert make().named(name).replacement_trigger is None, name


def test_existing_host_is_reached_by_address(make: Make) -> None:
    program = make()
    assert program.named("b-firewall").inputs["url"] == "ssh://root@10.0.0.2:22"
    assert program.named("b-notebook-image").inputs["environment"]["DESTINATION"] == "ssh://root@10.0.0.2:22"
    assert program.named("b-netv").inputs["ssh"].endswith(" ssh://root@10.0.0.2:22")
    assert program.of_type("providers:docker") == []
    reached = [resource for resource in program.resources if ".state/ssh/" in resource.plain()]
    assert reached
    for resource in reached:
        assert "config b" not in resource.plain(), resource.name


def test_lost_host_resources_are_retained(make: Make) -> None:
    program = make(lost=True)
    assert all(resource.retained for resource in on(program, "b").values())
    assert not any(resource.retained for resource in on(program, "a").values())


def test_operator_key_is_a_secret_of_connections_only(make: Make) -> None:
    program = make()
    assert [r.name for r in program.resources if "PRIVATE KEY" in r.plain()] == []
    holders = {r.type for r in program.resources if "OPENSSH PRIVATE KEY" in str(list(r.secrets()))}
    assert holders == {"command:remote:Command"}
