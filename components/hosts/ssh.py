"""The operator's SSH access: an ssh_config(5), a key and pinned host keys in the project's state folder.

The `ssh` client, the Docker provider and the `lab` command all go through these files. They are made from the
stack's state, so that a stack that is used from another machine gets them there with the next `pulumi up`.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Output, ResourceOptions, dynamic

from components.hosts.shell import PROJECT


def access_folder() -> str:
    """The folder, from the project's, of the files by which the stack's machines are reached."""
    return f".state/ssh/{pulumi.get_stack()}"


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom one host is reached."""

    alias: str
    address: str
    port: int
    user: str
    host_key: Output[str]


def render_config(folder: Path, hosts: Sequence[Mapping[str, Any]]) -> str:
    """Render the ssh_config(5): an alias per host, this key only, pinned host keys only."""
    blocks = [
        f"Host {host['alias']}\n"
        f"  HostName {host['address']}\n"
        f"  Port {int(host['port'])}\n"
        f"  User {host['user']}\n"
        for host in hosts
    ]
    blocks.append(
        "Host *\n"
        f'  IdentityFile "{folder}/identity"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{folder}/known_hosts"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n"
        "  ConnectTimeout 10\n"
        "  ServerAliveInterval 15\n"
        "  LogLevel ERROR\n"
    )
    return "\n".join(blocks)


def render_known_hosts(hosts: Sequence[Mapping[str, Any]]) -> str:
    """Render the known_hosts file, a line per host."""
    return "".join(
        (host["address"] if int(host["port"]) == 22 else f"[{host['address']}]:{int(host['port'])}")
        + f" {host['host_key']}\n"
        for host in hosts
    )


def _files(props: Mapping[str, Any]) -> dict[Path, str]:
    folder = PROJECT / props["folder"]
    return {
        folder / "identity": props["private_key"],
        folder / "known_hosts": render_known_hosts(props["hosts"]),
        folder / "config": render_config(folder, props["hosts"]),
    }


class _SshAccessProvider(dynamic.ResourceProvider):
    def _write(self, props: Mapping[str, Any]) -> dict[str, Any]:
        for path, text in _files(props).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            draft = path.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_text(text)
            draft.replace(path)
        return {**props, "config": f"{props['folder']}/config"}

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("ssh-access", self._write(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        changed = any(olds.get(key) != news.get(key) for key in ("folder", "hosts", "private_key"))
        absent = any(not path.is_file() or path.read_text() != text for path, text in _files(olds).items())
        return dynamic.DiffResult(changes=changed or absent)

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(self._write(news))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        shutil.rmtree(PROJECT / props["folder"], ignore_errors=True)


class SshAccess(dynamic.Resource, module="calico-lab", name="SshAccess"):
    """The files by which `ssh -F <config> <host>` reaches every machine of the lab."""

    config: Output[str]
    """Path of the ssh_config(5), from the project's folder."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        private_key: Output[str],
        opts: ResourceOptions | None = None,
    ) -> None:
        props = {
            "folder": access_folder(),
            "hosts": [vars(endpoint) for endpoint in endpoints],
            "private_key": private_key,
            "config": None,
        }
        secret = ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(_SshAccessProvider(), name, props, ResourceOptions.merge(opts, secret))
