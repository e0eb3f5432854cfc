"""The files of backups, and the flows that they need."""

import base64
import hashlib

import pytest

from components.backup import rendering
from components.backup.config import BackupConfig

CONFIG = BackupConfig.model_validate({"hosts": ["a0", "a2"], "everyMinutes": 30, "port": 8010})


def test_backup_host_of_is_never_the_host_itself() -> None:
    assert {host: rendering.backup_host_of(CONFIG, host) for host in ("a0", "a1", "a2")} == {
        "a0": "a2",
        "a1": "a0",
        "a2": "a0",
    }


def test_required_flows_reach_every_backup_host_from_every_host() -> None:
    # A notebook is restored on any host, from the repository of any other.
    flows = list(rendering.required_flows(CONFIG, ["a0", "a1", "a2"]))
    assert {(flow.origin, flow.host) for flow in flows} == {
        ("a0", "a2"),
        ("a1", "a0"),
        ("a1", "a2"),
        ("a2", "a0"),
    }
    assert {(flow.protocol, flow.port) for flow in flows} == {("tcp", 8010)}


def test_render_repositories_names_the_backup_host_and_the_source() -> None:
    repositories = rendering.render_repositories(CONFIG, {"a1": "172.16.6.44"}, {"a1": "secret"}, "PEM")
    assert repositories == {
        "a1": {"url": "rest:https://172.16.6.44:8010/a1/", "user": "a1", "password": "secret", "ca": "PEM"}
    }


def test_render_users_has_a_hash_and_no_password() -> None:
    text = rendering.render_users({"a1": "secret", "a2": "other"})
    assert "secret" not in text
    first, second = text.splitlines()
    user, _, stored = first.partition(":{SHA}")
    assert user == "a1"
    assert base64.b64decode(stored) == hashlib.sha1(b"secret").digest()  # noqa: S324 - the format
    assert second.startswith("a2:{SHA}")


@pytest.mark.parametrize(
    ("keep", "options"),
    [
        ({}, "--keep-last 3 --keep-hourly 24 --keep-daily 14 --keep-weekly 8"),
        ({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 6}, "--keep-last 3 --keep-monthly 6"),
    ],
    ids=["default", "months"],
)
def test_keep_options_leaves_out_what_is_zero(keep: dict[str, int], options: str) -> None:
    config = BackupConfig.model_validate({"hosts": ["a0", "a2"], "keep": keep})
    assert rendering.keep_options(config.keep) == options


def test_render_timer_counts_from_the_boot_and_from_the_last_run() -> None:
    timer = rendering.render_timer(CONFIG).splitlines()
    assert "OnActiveSec=2min" in timer
    assert "OnUnitActiveSec=30min" in timer


def test_render_server_listens_at_the_address_of_the_host_alone() -> None:
    assert "LISTEN=172.16.6.44:8010" in rendering.render_server(CONFIG, "172.16.6.44").splitlines()


def test_server_unit_appends_only_and_asks_for_a_password() -> None:
    unit = rendering.render_units(rendering.SERVER_UNITS)[
        "/etc/systemd/system/calico-lab-backup-server.service"
    ]
    for option in ("--append-only", "--private-repos", "--tls ", "--htpasswd-file"):
        assert option in unit
    assert "--no-auth" not in unit
    assert "DynamicUser=yes" in unit
