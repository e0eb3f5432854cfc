"""The etcd cluster as the engine sees it: what waits for what, and what is kept to itself."""

import copy
from typing import Any

import pytest

from components.etcd import component
from tests.preview.program import Program, config_of, run, variable

MEMBERS = ("a0", "a1", "a2")


@pytest.fixture(scope="module")
def lab() -> Program:
    return run(config_of("lab"))


def with_etcd(**values: Any) -> Program:  # noqa: ANN401 - values of the config file
    config = copy.deepcopy(config_of("lab"))
    config["calico-lab:etcd"].update(values)
    return run(config)


def configs(program: Program) -> list[str]:
    """What each member was started with: another value restarts it."""
    return [variable(program, f"{member}-etcd", "CONFIG") for member in MEMBERS]


def test_members_do_not_wait_for_each_other_and_the_gate_waits_for_all(lab: Program) -> None:
    started = {lab.named(f"{member}-etcd").urn for member in MEMBERS}
    for member in MEMBERS:
        assert not started & lab.named(f"{member}-etcd").dependencies
    assert started <= lab.named("etcd-health").dependencies


def test_the_gate_checks_each_member_against_all_others(lab: Program) -> None:
    gate = lab.named("etcd-health").inputs
    assert gate["port"] == 2380
    assert {check["host"]: set(check["peers"]) for check in gate["checks"]} == {
        member: set(MEMBERS) - {member} for member in MEMBERS
    }
    endpoints = {check["host"]: check["variables"]["ENDPOINT"] for check in gate["checks"]}
    assert endpoints["a1"] == "https://172.16.6.218:2379"
    assert set(gate["ssh"]) == set(MEMBERS)


def test_a_member_is_installed_after_the_check_of_the_members(lab: Program) -> None:
    membership = lab.named("etcd-membership").urn
    for member in MEMBERS:
        assert {membership, lab.named(f"{member}-prepare").urn} <= lab.named(f"{member}-etcd").dependencies


def test_a_key_travels_by_stdin_as_a_secret_and_is_for_etcd_alone(lab: Program) -> None:
    for member in MEMBERS:
        etcd = lab.named(f"{member}-etcd")
        assert any("etcd.key" in str(secret) for secret in etcd.secrets())
        assert f"the secret of {member}-etcd-certificate" in str(etcd.inputs["stdin"])
        assert "the secret of" not in etcd.plain()
        assert "OWNER=etcd:etcd" in etcd.inputs["create"]


def test_a_preview_shows_the_settings_of_a_member(lab: Program) -> None:
    # Plain files are part of the command, so that each changed line is seen.
    for member in MEMBERS:
        assert f"ETCD_NAME={member}" in lab.named(f"{member}-etcd").inputs["create"]


def test_only_members_certificates_have_the_name_of_a_peer(lab: Program) -> None:
    names = {resource.name: resource.inputs["common_name"] for resource in lab.of_type(":Certificate")}
    peers = {name for name, common_name in names.items() if common_name == "calico-lab-etcd"}
    assert peers == {f"{member}-etcd-certificate" for member in MEMBERS}


def test_a_member_is_restarted_and_checked_again_when_its_settings_change(lab: Program) -> None:
    changed = with_etcd(clientPort=2389)
    assert lab.named("etcd-health").inputs["triggers"] != changed.named("etcd-health").inputs["triggers"]
    for before, after in zip(configs(lab), configs(changed), strict=True):
        assert before != after


def test_a_member_is_not_restarted_for_another_one(lab: Program) -> None:
    changed = with_etcd(members=["a0", "a1"])
    for member in ("a0", "a1"):
        # The endpoints of its etcdctl follow.
        assert (
            lab.named(f"{member}-etcd").inputs["create"] != changed.named(f"{member}-etcd").inputs["create"]
        )
        assert variable(lab, f"{member}-etcd", "CONFIG") == variable(changed, f"{member}-etcd", "CONFIG")


def test_gate_asks_all_hosts_and_knows_the_members(lab: Program) -> None:
    fewer = with_etcd(members=["a1"]).named("etcd-health").inputs
    settings = fewer["settings"]
    # A former member may have the data.
    assert settings["asked"] == list(MEMBERS)
    assert set(fewer["ssh"]) == set(MEMBERS)
    assert settings["members"] == {"a1": "https://172.16.6.218:2380"}
    assert set(settings["peer_urls"]) == set(MEMBERS)
    assert settings["identity"] == "etcd-membership-id"
    assert [check["host"] for check in fewer["checks"]] == ["a1"]
    assert "settings" not in lab.named("calico-ready").inputs


def test_a_member_is_not_restarted_for_what_the_operator_types(
    lab: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component, "etcdctl", lambda: {"/usr/local/bin/etcdctl": "# calico-lab: another"})
    changed = run(config_of("lab"))
    assert lab.named("a0-etcd").inputs["create"] != changed.named("a0-etcd").inputs["create"]
    assert configs(lab) == configs(changed)


def test_a_member_is_undone_by_its_installation(lab: Program) -> None:
    for member in MEMBERS:
        etcd = lab.named(f"{member}-etcd").inputs
        assert "COMPONENT=etcd" in etcd["delete"]
        # An installation that is interrupted is in the host's own record, with what undoes it.
        assert "rm -rf /var/lib/calico-lab/etcd" in etcd["create"]
        assert " etcd " in f" {variable(lab, f'{member}-prepare', 'COMPONENTS')} "


def test_no_change_of_config_replaces_a_member(lab: Program) -> None:
    # A replacement would run the script that removes a member's data.
    for member in MEMBERS:
        assert "triggers" not in lab.named(f"{member}-etcd").inputs


def test_hosts_that_are_no_members_are_left_alone() -> None:
    single = with_etcd(members=["a1"])
    touched = {resource.name for resource in single.resources if "-etcd" in resource.name}
    assert {name.partition("-")[0] for name in touched if name[0] == "a"} == {"a1"}
    assert single.named("etcd-membership").inputs["members"] == {"a1": "https://172.16.6.218:2380"}
