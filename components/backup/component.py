"""Backup: restic copies of the notebooks' work, on hosts of the lab other than its own.

Each host has a repository of its own on the first backup host that is not itself, behind restic's
rest-server: TLS with a certificate of the lab's authority, a user and a password for each host, append only.
A timer on each host backs up the volumes with the label `calico-lab.notebook`, and verifies each snapshot by
a trial restore. `scripts/restore.sh` restores a snapshot into a volume on any host, also from the repository
of a host that is gone.

Owes: `up` ends when every host can open its repository. A host cannot change or remove its snapshots, because
the server only appends. So the backup host removes the old ones itself (`calico-lab-backup prune`), for which
it has the passwords of the repositories that it keeps. They lie beside the repositories, because a backup
that stays after `destroy` is of no use without its password. So what encryption protects is the way to the
backup host, and not the backup host's disk: whoever is root there can read the work, as on a notebook's host.
The password of a host leaves `repositories` when the host leaves the config, so its notebooks are restored
before that; the copy beside the repository stays.

restic and its server are Debian's packages. The server is in Debian 13 and not in Debian 12 or Ubuntu 24.04;
there a backup host needs the program restic-rest-server on its PATH. Considered: rclone's `serve restic`,
which every release has; before rclone 1.63 an interrupted upload stays as a damaged file that append-only
mode protects. Borg and SFTP give clients of the server an SSH account.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pulumi import ComponentResource, Input, Output, ResourceOptions
from pulumi_command import remote

from components.backup.config import BackupConfig
from components.backup.rendering import (
    CERTIFICATE_FILE,
    CLIENT_UNITS,
    KEY_FILE,
    PASSWORDS_FILE,
    PROGRAM_FILE,
    REPOSITORY_FILE,
    SERVER_FILE,
    SERVER_UNITS,
    TIMER,
    TIMER_FILE,
    USERS_FILE,
    backup_host_of,
    render_passwords,
    render_repositories,
    render_server,
    render_timer,
    render_units,
    render_users,
)
from components.hosts.files import digest
from components.hosts.host import Host, digest_of
from components.readiness.gate import Check, Gate
from components.shared.secrets import Certificate, CertificateAuthority, Token

PACKAGES = ["restic", "jq"]
SERVER_PACKAGES = ["restic-rest-server|restic-rest-server"]
MASKED_UNITS = ["restic-rest-server.service"]
SECONDS_UNTIL_READY = 60
_SCRIPTS = Path(__file__).with_name("scripts")


class Backup(ComponentResource):
    """Backups of the notebooks' work of some hosts."""

    repositories: Output[dict[str, dict[str, str]]]
    """What `rendering.RESTORE` reads as JSON from standard input (secret): the repository by source host."""
    ready: Gate
    """Done when each host can open its repository."""

    def __init__(
        self,
        name: str,
        config: BackupConfig,
        hosts: Mapping[str, Host],
        authority: CertificateAuthority,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Set up the backup hosts, and the timers of all hosts.

        Args:
            name: The component's name.
            config: Its section.
            hosts: The hosts that may run notebooks, and the backup hosts, by name.
            authority: Signs the certificates of the backup hosts.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:Backup", name, None, opts)
        self._config = config
        self._hosts = hosts
        self._authority = authority
        self._child = ResourceOptions(parent=self)
        self._passwords = {host: Token(f"{host}-backup-password", opts=self._child).value for host in hosts}
        self.repositories = self._repositories(list(hosts))
        installed = {host.name: self._install(host) for host in hosts.values()}
        self.ready = Gate(
            f"{name}-ready",
            _SCRIPTS / "ready.sh",
            [Check(host, {}, peers=[hosts[backup_host_of(config, host.name)]]) for host in hosts.values()],
            port=config.port,
            seconds=SECONDS_UNTIL_READY,
            triggers=[digest_of(installed.values())],
            opts=ResourceOptions(parent=self, depends_on=list(installed.values())),
        )
        self.register_outputs({"repositories": self.repositories})

    def _repositories(self, sources: Sequence[str]) -> Output[dict[str, dict[str, str]]]:
        """The repositories of some hosts, by source host."""
        addresses = {source: self._hosts[backup_host_of(self._config, source)].address for source in sources}
        secrets = Output.all(*[self._passwords[source] for source in sources])
        return Output.secret(
            Output.all(secrets, self._authority.certificate).apply(
                lambda values: render_repositories(
                    self._config, addresses, dict(zip(sources, values[0], strict=True)), values[1]
                )
            )
        )

    def _install(self, host: Host) -> remote.Command:
        """Install what the host needs to back up; on a backup host also the server."""
        sources = [source for source in self._hosts if backup_host_of(self._config, source) == host.name]
        is_backup_host = host.name in self._config.hosts
        files = {
            PROGRAM_FILE: (_SCRIPTS / "calico-lab-backup").read_text(),
            TIMER_FILE: render_timer(self._config),
            **render_units(CLIENT_UNITS),
        }
        secrets: dict[str, Input[str]] = {REPOSITORY_FILE: self._repositories([host.name]).apply(_json)}
        started: list[Input[str]] = []
        if is_backup_host:
            certificate = Certificate(
                f"{host.name}-backup-certificate",
                self._authority,
                "calico-lab-backup",
                names=[host.name, host.address],
                usages=["server"],
                opts=self._child,
            )
            files |= {SERVER_FILE: render_server(self._config, host.address), **render_units(SERVER_UNITS)}
            passwords = Output.all(**{source: self._passwords[source] for source in sources})
            secrets |= {
                CERTIFICATE_FILE: certificate.certificate,
                KEY_FILE: certificate.private_key,
                USERS_FILE: passwords.apply(render_users),
                PASSWORDS_FILE: passwords.apply(render_passwords),
            }
            started = [certificate.certificate, passwords.apply(render_users)]
        return host.install(
            "backup",
            packages=[*PACKAGES, *(SERVER_PACKAGES if is_backup_host else [])],
            mask=MASKED_UNITS if is_backup_host else [],
            files=files,
            secrets=secrets,
            start=_SCRIPTS / "start.sh",
            stop=_SCRIPTS / "stop.sh",
            unit=TIMER,
            # The passwords are 256 random bits, so the digest reveals nothing.
            config=Output.unsecret(
                Output.all(*started).apply(lambda texts: digest([*files.values(), *texts]))
            ),
            variables={
                "BACKUP_HOST": "yes" if is_backup_host else "",
                "KEEP_ON_DESTROY": "yes" if self._config.keep_on_destroy else "",
            },
            opts=self._child,
        )


def _json(repositories: Mapping[str, Mapping[str, str]]) -> str:
    return json.dumps(repositories, indent=2)
