"""The etcd cluster as the engine sees it: what waits for what, and what is kept to itself."""

import copy
from typing import Any

import pytest

from tests.preview.program import Program, config_of, run

MEMBERS = ("a0", "a1", "a2")


@pytest.fixture(scope="module")
def lab() -> Program:
    return run(config_of("lab"))


def with_etcd(**values: Any) -> Program:  # noqa: ANN401 - values of the config file
    config = copy.deepcopy(config_of("lab"))
    config["calico-lab:etcd"].update(values)
    return run(config)


def commands(program: Program, name: str) -> list[str]:
    return [program.named(f"{member}-{name}").inputs["create"] for member in MEMBERS]


def test_members_do_not_wait_for_each_other_and_gates_wait_for_all(lab: Program) -> None:
    started = {lab.named(f"{member}-etcd").urn for member in MEMBERS}
    for member in MEMBERS:
        assert not started & lab.named(f"{member}-etcd").dependencies
        assert started <= lab.named(f"{member}-etcd-health").dependencies


def test_a_member_starts_after_its_files_and_the_check_of_the_members(lab: Program) -> None:
    membership = lab.named("etcd-membership").urn
    for member in MEMBERS:
        before = {lab.named(f"{member}-etcd-{step}").urn for step in ("packages", "pki", "settings")}
        assert before | {membership} <= lab.named(f"{member}-etcd").dependencies


def test_a_key_travels_by_stdin_as_a_secret_and_is_for_etcd_alone(lab: Program) -> None:
    for member in MEMBERS:
        pki = lab.named(f"{member}-etcd-pki")
        (secret,) = (secret for secret in pki.secrets() if "etcd.key" in str(secret))
        assert f"the secret of {member}-etcd-certificate" in str(secret)
        assert "the secret of" not in pki.plain()
        assert "MODE=0600" in pki.inputs["create"]
        assert "OWNER=etcd:etcd" in pki.inputs["create"]


def test_only_members_certificates_have_the_name_of_a_peer(lab: Program) -> None:
    names = {resource.name: resource.inputs["common_name"] for resource in lab.of_type(":Certificate")}
    peers = {name for name, common_name in names.items() if common_name == "calico-lab-etcd"}
    assert peers == {f"{member}-etcd-certificate" for member in MEMBERS}


def test_a_member_is_started_anew_and_checked_anew_when_its_settings_change(lab: Program) -> None:
    changed = with_etcd(token="another")
    for member in MEMBERS:
        assert (
            lab.named(f"{member}-etcd-health").inputs["triggers"]
            != (changed.named(f"{member}-etcd-health").inputs["triggers"])
        )
    for before, after in zip(commands(lab, "etcd"), commands(changed, "etcd"), strict=True):
        assert before != after


def test_a_start_that_is_cut_off_is_known_to_a_removal(lab: Program) -> None:
    # The engine forgets what failed to be created: what undoes it is a resource of its own, made before.
    for member in MEMBERS:
        removal, etcd = (lab.named(f"{member}-{name}") for name in ("etcd-removal", "etcd"))
        assert "create" not in removal.inputs
        assert "rm -rf /var/lib/calico-lab/etcd" in removal.inputs["delete"]
        assert removal.urn in etcd.dependencies
        assert "delete" not in etcd.inputs, "it would be done twice"
        before = {lab.named(f"{member}-etcd-{step}").urn for step in ("packages", "pki", "settings")}
        assert before <= removal.dependencies


def test_no_change_of_config_replaces_a_member(lab: Program) -> None:
    # A replacement would run the script that removes a member's data.
    for member in MEMBERS:
        for name in ("etcd", "etcd-removal"):
            assert "triggers" not in lab.named(f"{member}-{name}").inputs
        assert "remove-member" not in lab.named(f"{member}-etcd-health").inputs.get("delete", "")


def test_hosts_that_are_no_members_are_left_alone() -> None:
    single = with_etcd(members=["a1"])
    touched = {resource.name for resource in single.resources if "-etcd" in resource.name}
    assert {name.partition("-")[0] for name in touched if name[0] == "a"} == {"a1"}
    assert single.named("etcd-membership").inputs["members"] == {"a1": "https://172.16.6.218:2380"}
