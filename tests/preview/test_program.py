"""The program as the engine sees it: what it asks for, in which order, and what it keeps to itself."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pulumi import RunError

from tests.preview.program import UNKNOWN, Program, Registered, config_of, run, variable

HOSTS = ("a0", "a1", "a2", "visitor")
CASES = Path(__file__).parent / "cases"


@pytest.fixture(scope="module")
def lab() -> Program:
    return run(config_of("lab"))


def on_a_host(resource: Registered) -> bool:
    return resource.type == "command:remote:Command" or resource.type.endswith(":DockerObject")


def inputs_by_urn(program: Program) -> dict[str, str]:
    return {resource.urn: json.dumps(resource.inputs, sort_keys=True) for resource in program.resources}


def test_the_original_lab_is_what_the_file_describes(lab: Program) -> None:
    machines = {name: lab.named(f"{name}-container").inputs for name in HOSTS}
    addresses = {name: machine["networksAdvanced"][0]["ipv4Address"] for name, machine in machines.items()}
    assert addresses == {
        "a0": "172.16.6.44",
        "a1": "172.16.6.218",
        "a2": "172.16.6.231",
        "visitor": "172.16.6.66",
    }
    assert lab.named("notebook").inputs["address"] == "192.168.0.100"
    assert lab.named("a1-netv").inputs["variables"]["CIDR"] == "192.168.0.0/16"


def test_what_touches_a_made_host_goes_with_its_machine(lab: Program) -> None:
    touching = [resource for resource in lab.resources if on_a_host(resource)]
    assert {f"{host}-docker" for host in HOSTS if host != "visitor"} <= {r.name for r in touching}
    machines = {lab.named(f"{host}-container").urn for host in HOSTS}
    assert {resource.name for resource in touching if resource.deleted_with not in machines} == set()


def test_a_machine_in_anothers_place_gets_all_that_was_on_it(lab: Program) -> None:
    """Each resource on a host has something of the machine that makes it run, or be made, again."""
    containers = {lab.named(f"{host}-container").urn for host in HOSTS}
    for resource in (resource for resource in lab.resources if resource.deleted_with in containers):
        identity = f"{resource.deleted_with.rpartition('::')[2]}-id"
        if resource.type == "command:remote:Command":
            assert not resource.inputs.get("create") or identity in resource.inputs["create"], resource.name
            # It would be undone, and not done again.
            assert resource.replacement_trigger is None
        elif resource.type.endswith(":Gate"):
            # A digest of what it waits for, and that has run again.
            assert resource.inputs["triggers"]
        else:
            assert identity in json.dumps(resource.inputs), resource.name
    assert lab.named("notebook").inputs["host_container"] == "a1-container-id"


def test_every_docker_resource_names_its_engine(lab: Program) -> None:
    on_docker = [resource for resource in lab.resources if resource.type.startswith("docker:")]
    assert on_docker
    assert {resource.name for resource in on_docker if not resource.provider} == set()


def test_every_connection_checks_the_host_key(lab: Program) -> None:
    for resource in lab.resources:
        if resource.type.startswith("command:remote:"):
            assert "ssh-ed25519" in json.dumps(resource.inputs["connection"]), resource.name


def test_secrets_are_nowhere_in_the_clear(lab: Program) -> None:
    assert any("the secret of" in str(secret) for resource in lab.resources for secret in resource.secrets())
    assert [resource.name for resource in lab.resources if "the secret of" in resource.plain()] == []


def test_a_first_preview_reaches_no_host(lab: Program) -> None:
    planned = run(config_of("lab"), planned=True)
    assert [resource.urn for resource in planned.resources if resource.urn not in inputs_by_urn(lab)] == []
    for host in ("a0", "a1", "a2"):
        assert planned.named(f"{host}-netv").inputs["ssh"] == UNKNOWN


def test_the_same_config_gives_the_same_program(lab: Program) -> None:
    assert inputs_by_urn(run(config_of("lab"))) == inputs_by_urn(lab)


def with_change(
    path: str,
    value: Any,  # noqa: ANN401 - a JSON value
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    config = copy.deepcopy(config or config_of("lab"))
    section, *keys = path.split(".")
    place = config[f"calico-lab:{section}"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return config


def test_a_policy_that_is_switched_on_is_one_resource_more(lab: Program) -> None:
    before = inputs_by_urn(lab)
    after = inputs_by_urn(run(with_change("firewall.policies.reject-address.enabled", True)))
    changed = {urn for urn in after if before.get(urn) != after[urn]}
    assert {urn.rpartition("::")[2] for urn in changed} == {"a0-firewall"}
    assert set(before) - set(after) == set()


@pytest.mark.parametrize(("section", "name"), [("sshBox", "sshbox"), ("proxy", "proxy")])
def test_a_service_that_moves_is_another_container(lab: Program, section: str, name: str) -> None:
    before = lab.named(name)
    after = run(with_change(f"{section}.host", "a1")).named(name)
    assert before.inputs["host"] != after.inputs["host"]
    assert before.inputs["location"] != after.inputs["location"]


def test_a_notebook_that_moves_is_updated_with_its_work(lab: Program) -> None:
    after = run(with_change("notebook.host", "a0"))
    for name in ("notebook", "notebook-work"):
        before, moved = lab.named(name).inputs, after.named(name).inputs
        assert {key for key in before if before[key] != moved[key]} >= {"host", "location", "ssh"}


def test_another_ssh_box_takes_the_config_alone(lab: Program) -> None:
    config = config_of("lab")
    config["calico-lab:sshBoxes"] = {"class": {"host": "a1", "address": "192.168.0.102"}}
    config["calico-lab:network"]["policies"]["box"] = {"appliesTo": "sshbox-class", "egress": []}
    after = run(config)
    box = after.named("sshbox-class")
    assert box.inputs["docker_name"] == "calico-lab-sshbox-class"
    variables = box.inputs["variables"]
    assert (variables["NETWORK"], variables["ADDRESS"]) == ("netv", "192.168.0.102")
    assert variables["SERVICE"] == "sshbox-class"
    assert "calico-lab.service == 'sshbox-class'" in after.named("network-policy-box").inputs["stdin"]
    assert "192.168.0.102/32" in after.named("calico-datastore").inputs["stdin"]
    access = after.named("box-access")
    assert [(one["alias"], one["host"]) for one in access.inputs["boxes"]] == [
        ("sshbox", "a0"),
        ("sshbox-class", "a1"),
    ]
    # The original's box is as it was.
    assert after.named("sshbox").inputs == lab.named("sshbox").inputs


def test_a_volume_that_moves_is_another_one(lab: Program) -> None:
    before = lab.named("sshbox-home")
    after = run(with_change("sshBox.host", "a2")).named("sshbox-home")
    assert before.inputs["location"] == "a0"
    assert after.inputs["location"] == "a2"


@pytest.mark.parametrize("case", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_bad_config_is_refused_before_the_first_resource(case: Path) -> None:
    spec = json.loads(case.read_text())
    config = with_change(spec["path"], spec["value"])
    for path, value in spec.get("with", {}).items():
        config = with_change(path, value, config)
    registered = Program()
    with pytest.raises(RunError) as refused:
        run(config, program=registered)
    for fragment in spec["message"]:
        assert fragment in str(refused.value)
    assert registered.resources == []


def test_every_component_of_a_host_is_known_to_its_preparation(lab: Program) -> None:
    # What an interrupted installation left of another component is undone there.
    for host in ("a0", "a1", "a2"):
        installed = {
            variable(lab, resource.name, "COMPONENT")
            for resource in lab.of_type("remote:Command")
            if resource.name.startswith(f"{host}-")
            and "export COMPONENT=" in resource.inputs.get("create", "")
        }
        assert {"docker", "etcd", "calico-programs", "calico"} <= installed
        assert installed == set(variable(lab, f"{host}-prepare", "COMPONENTS").split())
        for component in installed:
            command = lab.named(f"{host}-{component}")
            assert f"COMPONENT={component}\n" in command.inputs["delete"]
            assert lab.named(f"{host}-prepare").urn in command.dependencies


def test_a_host_is_put_back_after_all_that_was_installed(lab: Program) -> None:
    # Docker's images and networks are gone by then, and its engine is what removes them.
    for host in ("a0", "a1", "a2"):
        engine = lab.named(f"{host}-docker")
        assert "daemon.json" in variable(lab, f"{host}-docker", "STOP")
        on_engine = [r for r in lab.of_type(":DockerObject") if r.inputs["host"] == host]
        assert on_engine
        assert all(engine.urn in resource.dependencies for resource in on_engine)
