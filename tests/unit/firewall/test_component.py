"""FirewallPolicy under Pulumi's mocks: its resources and their inputs."""

from typing import Any

import pulumi
import pytest
from pulumi import Output, RunError
from pulumi.runtime import Mocks
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs
from pulumi_command import remote

from components.firewall.component import FirewallPolicy
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.guard import required_flows
from components.hosts.host import Host
from components.shared.flows import HostFlow
from tests.unit.firewall.firewall_cases import LAB

DROP_80 = {"action": "drop", "protocol": "tcp", "ports": 80}
FIREWALL = "pulumi-python:dynamic/calico-lab:HostFirewall"


class Recorder(Mocks):
    """Keeps the inputs of every resource, by type and name."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """Record a resource."""
        self.resources[args.typ, args.name] = args.inputs
        return f"{args.name}-id", args.inputs

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        """Function calls: there are none."""
        raise NotImplementedError(args.token)


def up(section: dict[str, Any]) -> tuple[Recorder, dict[str, list[str]]]:
    """Register a FirewallPolicy; return its resources and its output."""
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder)
    active: list[dict[str, list[str]]] = []

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> Output[None]:
        hosts = {
            name: Host(
                name,
                machine.address,
                "root",
                remote.ConnectionArgs(host=machine.address),
                Output.from_input("ssh/config"),
                f"ssh://{machine.address}",
                [],
                None,
            )
            for name, machine in LAB.hosts.items()
        }
        firewall = FirewallPolicy(
            "firewall",
            FirewallConfig.model_validate(section),
            lab=LAB,
            flows=required_flows(LAB, [HostFlow("etcd's peers", "a1", "a0", "tcp", 2380)]),
            hosts=hosts,
        )
        return firewall.active.apply(active.append)

    program()
    return recorder, active[0]


def test_firewall_policy_makes_no_resource_without_an_active_policy() -> None:
    off = {"enabled": False, "hosts": ["a1"], "default": "drop"}
    recorder, active = up({"policies": {"on": {"hosts": ["a0"], "rules": [DROP_80]}, "off": off}})
    assert set(recorder.resources) == {
        ("calico-lab:index:FirewallPolicy", "firewall"),
        (FIREWALL, "a0-firewall"),
    }
    assert active == {"a0": ["on"]}


def test_firewall_policy_inputs_of_a_host() -> None:
    recorder, _ = up({"undoSeconds": 30, "policies": {"p": {"hosts": ["a0"], "rules": [DROP_80]}}})
    inputs = recorder.resources[FIREWALL, "a0-firewall"]
    assert inputs["host"] == "a0"
    assert (inputs["ssh_config"], inputs["url"]) == ("ssh/config", f"ssh://{LAB.hosts['a0'].address}")
    assert inputs["ipv4"]["CALICO-LAB-INPUT"]["p"] == [
        '-p tcp -m tcp --dport 80 -m comment --comment "p/1" -j DROP'
    ]
    assert (inputs["policies"], inputs["operator"]) == (["p"], ["172.16.6.1"])
    assert (inputs["undo_seconds"], inputs["allow_lockout"]) == (30, False)
    assert inputs["addresses"] == {"a0": "172.16.6.44", "a1": "172.16.6.218", "a2": "172.16.6.231"}
    assert inputs["probes"] == {"a1": {"a0:2380": "etcd's peers"}}


def test_firewall_policy_refused_by_the_guard_stops_the_program() -> None:
    with pytest.raises(RunError, match="cuts on a0: the operator's SSH"):
        up({"policies": {"p": {"hosts": ["a0"], "default": "drop"}}})
