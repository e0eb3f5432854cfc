"""Backups as the engine sees them: what is installed where, and which secrets stay secret."""

import json

import pytest

from tests.preview.program import Program, config_of, run, variable

HOSTS = ("a0", "a1", "a2")
SECTION = {"hosts": ["a0", "a2"]}


def with_backup(**values: object) -> Program:
    return run({**config_of("lab"), "calico-lab:backup": {**SECTION, **values}})


@pytest.fixture(scope="module")
def lab() -> Program:
    return with_backup()


def test_without_the_section_there_is_nothing() -> None:
    assert not [one for one in run(config_of("lab")).resources if "backup" in one.name]


def test_each_host_has_one_command_and_backup_hosts_a_certificate(lab: Program) -> None:
    names = {one.name for one in lab.resources if "backup" in one.name}
    assert names == {
        "backup",
        "backup-ready",
        *(f"{host}-backup" for host in HOSTS),
        *(f"{host}-backup-password" for host in HOSTS),
        *(f"{host}-backup-certificate" for host in SECTION["hosts"]),
    }


def test_the_gate_tries_each_host_against_its_backup_host(lab: Program) -> None:
    gate = lab.named("backup-ready").inputs
    assert gate["port"] == 8000
    assert {check["host"]: list(check["peers"]) for check in gate["checks"]} == {
        "a0": ["a2"],
        "a1": ["a0"],
        "a2": ["a0"],
    }
    assert {lab.named(f"{host}-backup").urn for host in HOSTS} <= lab.named("backup-ready").dependencies


def secret_files(lab: Program, host: str) -> str:
    """The secret files of a host, as they travel by stdin."""
    [stdin] = [str(text) for text in lab.named(f"{host}-backup").secrets() if "repository.json" in str(text)]
    return stdin


def test_passwords_travel_by_stdin_as_secrets(lab: Program) -> None:
    for host in HOSTS:
        installed = lab.named(f"{host}-backup")
        assert f"the secret of {host}-backup-password" in secret_files(lab, host)
        assert "the secret of" not in installed.plain()
        assert "OWNER=root:root" in installed.inputs["create"]


def test_a_backup_host_has_the_passwords_of_its_own_repositories_alone(lab: Program) -> None:
    def passwords(host: str) -> dict[str, str]:
        _, _, rest = secret_files(lab, host).partition("==> /etc/calico-lab/backup/passwords.json\n")
        found: dict[str, str] = json.loads(rest.partition("\n==> ")[0]) if rest else {}
        return found

    assert {host: set(passwords(host)) for host in HOSTS} == {"a0": {"a1", "a2"}, "a1": set(), "a2": {"a0"}}


def test_only_backup_hosts_have_the_server(lab: Program) -> None:
    for host in HOSTS:
        server = host in SECTION["hosts"]
        assert (variable(lab, f"{host}-backup", "BACKUP_HOST") == "yes") == server
        assert ("restic-rest-server" in variable(lab, f"{host}-backup", "PACKAGES")) == server
        assert (variable(lab, f"{host}-backup", "MASK") == "restic-rest-server.service") == server


def test_a_preview_of_a_new_lab_has_all_of_it() -> None:
    planned = run({**config_of("lab"), "calico-lab:backup": SECTION}, planned=True)
    assert "backup-ready" in {one.name for one in planned.resources}


@pytest.mark.parametrize("keep", [True, False])
def test_the_removal_knows_whether_backups_stay(keep: bool) -> None:
    stop = variable(with_backup(keepOnDestroy=keep), "a0-backup", "STOP")
    assert f"export KEEP_ON_DESTROY={'yes' if keep else chr(39) * 2}" in stop


def test_a_change_of_the_server_restarts_it_and_checks_again(lab: Program) -> None:
    changed = with_backup(port=8010)
    for host in SECTION["hosts"]:
        assert variable(lab, f"{host}-backup", "CONFIG") != variable(changed, f"{host}-backup", "CONFIG")
    assert lab.named("backup-ready").inputs["triggers"] != changed.named("backup-ready").inputs["triggers"]
