"""The files of backups, as text, and the flows between hosts that backups need. Pure."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.shared.flows import HostFlow

if TYPE_CHECKING:
    from components.backup.config import BackupConfig, KeepConfig

_UNITS = Path(__file__).with_name("units")
RESTORE = Path(__file__).with_name("scripts") / "restore.sh"
"""Restores a notebook's work into a volume; its comment says how."""
FOLDER = "/etc/calico-lab/backup"
REPOSITORY_FILE = f"{FOLDER}/repository.json"
"""The host's own repository, with its password; in the format that `restore` reads."""
CERTIFICATE_FILE = f"{FOLDER}/server.crt"
KEY_FILE = f"{FOLDER}/server.key"
USERS_FILE = f"{FOLDER}/htpasswd"
PASSWORDS_FILE = f"{FOLDER}/passwords.json"
SERVER_FILE = f"{FOLDER}/server.env"
PROGRAM_FILE = "/usr/local/bin/calico-lab-backup"
TIMER = "calico-lab-backup.timer"
TIMER_FILE = f"/etc/systemd/system/{TIMER}"
CLIENT_UNITS = ("calico-lab-backup.service",)
SERVER_UNITS = (
    "calico-lab-backup-server.service",
    "calico-lab-backup-prune.service",
    "calico-lab-backup-prune.timer",
)


def backup_host_of(config: "BackupConfig", host: str) -> str:
    """Returns the backup host of a host: the first one that is not itself."""
    return next(backup_host for backup_host in config.hosts if backup_host != host)


def required_flows(config: "BackupConfig", hosts: Sequence[str]) -> Iterator[HostFlow]:
    """The connections that backups need: from every host, because a notebook is restored on any of them.

    Args:
        config: The section.
        hosts: The hosts that may run notebooks.
    """
    for origin in hosts:
        for backup_host in config.hosts:
            if backup_host != origin:
                yield HostFlow("backups", origin, backup_host, "tcp", config.port)


def render_repositories(
    config: "BackupConfig", addresses: Mapping[str, str], passwords: Mapping[str, str], authority: str
) -> dict[str, dict[str, str]]:
    """Returns what `calico-lab-backup restore` reads: what opens the repository of each source host.

    Args:
        config: The section.
        addresses: The address of the backup host by source host.
        passwords: The password of the repository and of its user, by source host.
        authority: The certificate of the authority that signs the server's, PEM.
    """
    return {
        source: {
            "url": f"rest:https://{addresses[source]}:{config.port}/{source}/",
            "user": source,
            "password": password,
            "ca": authority,
        }
        for source, password in passwords.items()
    }


def render_users(passwords: Mapping[str, str]) -> str:
    """Render the server's users, one for each host, in the format of htpasswd.

    SHA-1 and not bcrypt, because the passwords are 256 random bits, which no dictionary has, and because a
    salt would change the file with every update.
    """
    lines = [
        f"{host}:{{SHA}}{base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()}\n"  # noqa: S324
        for host, password in passwords.items()
    ]
    return "".join(lines)


def render_passwords(passwords: Mapping[str, str]) -> str:
    """Render the passwords of the repositories on a backup host, by source host."""
    return json.dumps(dict(passwords), indent=2)


def keep_options(keep: "KeepConfig") -> str:
    """Returns the options of restic-forget(1)."""
    return " ".join(f"--keep-{period} {count}" for period, count in keep.model_dump().items() if count)


def render_server(config: "BackupConfig", address: str) -> str:
    """Render the environment of the server's units."""
    return f"""\
LISTEN={address}:{config.port}
KEEP={keep_options(config.keep)}
"""


def render_timer(config: "BackupConfig") -> str:
    """Render the timer of a host's backups.

    It counts from the boot and from the last run, so a host that was down is backed up soon after its boot.
    """
    return f"""\
[Unit]
Description=Calico Lab: backups of the notebooks' work

[Timer]
OnActiveSec=2min
OnUnitActiveSec={config.every_minutes}min
RandomizedDelaySec={min(config.every_minutes * 6, 600)}
AccuracySec=5s

[Install]
WantedBy=timers.target
"""


def render_units(names: Sequence[str]) -> dict[str, str]:
    """Units of this component, by path, for `Host.install`."""
    return {f"/etc/systemd/system/{name}": (_UNITS / name).read_text() for name in names}
