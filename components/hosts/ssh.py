"""SSH access to hosts: an ssh_config(5), known_hosts and the generated key, in the state folder.

The `ssh` client and `lab` use these files. They are written from the stack's state, so a
checkout on another controller gets them with the next `pulumi up`. The operator's own key is used where it
is.

The aliases are for the operator: each means the current host of that name. Pulumi deletes last, when a name
may be gone or mean another host. So resources use `Endpoint.url`, which always means the same host.
known_hosts keeps the keys of hosts that left, because a later update may have to remove what is on them.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic

from components.hosts.remote import PROJECT, run
from components.shared.provider import differ

LOOK_SECONDS = 10
"""Time limit for a host that leaves the lab to answer."""


def access_folder() -> str:
    """The folder with the SSH files of the stack, from the project's folder."""
    return f".state/ssh/{pulumi.get_stack()}"


def boxes_config(folder: Path) -> Path:
    """The ssh_config(5) of the SSH boxes, in a folder with their other files; absent without boxes.

    Args:
        folder: The folder of the hosts' files.
    """
    return folder / "boxes" / "config"


def write_files(folder: Path, files: Mapping[Path, str]) -> None:
    """Write files that only the operator can read, and remove all other files of their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path, text in files.items():
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(text)
        draft.replace(path)
    for path in set(folder.iterdir()) - set(files):
        if not path.is_dir():
            path.unlink()


def are_written(files: Mapping[Path, str]) -> bool:
    """Whether files have these texts. On another controller they are not there until the next update."""
    return all(path.is_file() and path.read_text() == text for path, text in files.items())


@dataclass(frozen=True)
class Endpoint:
    """Address, port and user of one host."""

    alias: str
    address: str
    port: int
    user: str
    host_key: Output[str]
    lost: bool = False
    """Whether the host is gone for good: nothing is removed there."""

    @property
    def url(self) -> str:
        """The destination for ssh(1) and Docker."""
        return f"ssh://{self.user}@{self.address}:{self.port}"

    def reached_by(self, login: "Login") -> dict[str, Input[str | int]]:
        """The properties that `write_access` needs, and `identity`: the path of the private key, or empty."""
        return {
            "alias": self.alias,
            "address": self.address,
            "port": self.port,
            "user": self.user,
            "host_key": self.host_key,
            "identity": str(login.identity or ""),
        }


@dataclass(frozen=True)
class Login:
    """The operator's key: one that the lab generated, a file, or one of the ssh-agent."""

    private_key: Output[str] | None = None
    """The text of the key (secret), for the command plugin; None for the ssh-agent."""
    identity: Path | None = None
    """The file of the operator's own key."""


def render_config(folder: Path, hosts: Sequence[Mapping[str, Any]], identity: Path | None) -> str:
    """Render the ssh_config(5): an alias for each host and each SSH box, one key, pinned host keys only.

    Args:
        folder: The folder with known_hosts.
        hosts: The hosts that get an alias.
        identity: The only private key that is tried; None for those of the ssh-agent.
    """
    # ssh(1) ignores it if it is absent.
    blocks = [f'Include "{boxes_config(folder)}"\n']
    blocks += [
        f"Host {host['alias']}\n"
        f"  HostName {host['address']}\n"
        f"  Port {int(host['port'])}\n"
        f"  User {host['user']}\n"
        for host in hosts
    ]
    file = f'"{identity}"' if identity else "none"
    blocks.append(
        "Host *\n"
        f"  IdentityFile {file}\n"
        f"  IdentitiesOnly {'yes' if identity else 'no'}\n"
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


def write_access(folder: Path, hosts: Sequence[Mapping[str, Any]], identity: Path | None) -> None:
    """Write SSH files for existing hosts, for use before the stack has its own.

    Args:
        folder: Where `config` and `known_hosts` are written.
        hosts: The hosts, each with an alias.
        identity: The private key; None for those of the ssh-agent.
    """
    (folder / "config").write_text(render_config(folder, hosts, identity))
    (folder / "known_hosts").write_text(render_known_hosts(hosts))


def refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say why a change of existing hosts cannot be done in one update, a sentence each.

    Pulumi deletes last. So a host that leaves must not return under another name in the same update, and it
    has to answer, because what is on it is removed.
    """
    before = {host["alias"]: host for host in olds["hosts"]}
    names = {host["address"]: alias for alias, host in before.items()}
    after = {host["alias"]: host for host in news["hosts"]}
    refused = []
    for alias, host in after.items():
        address, former = host["address"], before.get(alias)
        name = names.get(address, alias)
        if name != alias:
            refused.append(
                f"hosts.members.{alias}: the host at {address} is {name} of this lab, and removing {name} "
                f"would remove {alias} with it. First take {name} off the lab, with 'pulumi up'; then give "
                f"{alias} that address. Nothing was changed"
            )
        elif former and former["address"] != address and former["host_key"] == host["host_key"]:
            refused.append(
                f"hosts.members.{alias}: {address} has the host key of {former['address']}, so it is the "
                f"same host, or a copy of it. First take {alias} off the lab, with 'pulumi up'; then name it "
                "again. (A copy should have keys of its own: there, 'rm /etc/ssh/ssh_host_*_key*; "
                "ssh-keygen -A'.) Nothing was changed"
            )
    leaving = [
        host
        for alias, host in before.items()
        if not host["lost"] and host["address"] != after.get(alias, {}).get("address")
    ]
    config = f"{news['folder']}/config"
    # Without the file no host can be asked.
    if refused or not leaving or not (PROJECT / config).is_file():
        return refused
    with ThreadPoolExecutor(max_workers=len(leaving)) as pool:
        answers = list(
            pool.map(lambda host: run(f"ssh -F {config} {_url(host)}", ":", None, LOOK_SECONDS), leaving)
        )
    return [
        f"hosts.members: {host['alias']} at {host['address']} leaves the lab, and what is on it cannot be "
        f"removed ({answer.error or f'exit code {answer.status}'}). Start it, and run the command again. If "
        f"it is gone for good: leave {host['alias']} as it was, but with 'lost: true', run 'pulumi up', and "
        "then take it off. Nothing was changed"
        for host, answer in zip(leaving, answers, strict=True)
        if answer.status
    ]


def _url(host: Mapping[str, Any]) -> str:
    return Endpoint(host["alias"], host["address"], int(host["port"]), host["user"], host["host_key"]).url


def reached(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The current and former hosts of a lab, each address once."""
    hosts = [*news["hosts"], *olds.get("known", [])]
    return list({(host["address"], int(host["port"])): host for host in reversed(hosts)}.values())


def _files(props: Mapping[str, Any]) -> dict[Path, str]:
    folder = PROJECT / props["folder"]
    # The engine drops properties that are None.
    key = props.get("private_key")
    own = {folder / "identity": key} if key else {}
    identity = folder / "identity" if own else Path(props["identity"]) if props["identity"] else None
    return {
        **own,
        folder / "known_hosts": render_known_hosts(props.get("known", [])),
        folder / "config": render_config(folder, props["hosts"], identity),
    }


class _SshAccessProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        # Host containers, whose key the lab generated, are deleted together with what is on them.
        taken = bool(olds.get("hosts")) and not olds.get("private_key")
        refused = refusals(olds, news) if taken and differ(("hosts",), olds, news) else []
        return dynamic.CheckResult(dict(news), [dynamic.CheckFailure("hosts", reason) for reason in refused])

    def _write(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        props = {**news, "known": reached(olds, news)}
        write_files(PROJECT / props["folder"], _files(props))
        return props

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("ssh-access", self._write({}, props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        changed = differ(("folder", "hosts", "identity", "private_key"), olds, news)
        return dynamic.DiffResult(changes=changed or not are_written(_files(olds)))

    def update(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(self._write(olds, news))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        shutil.rmtree(PROJECT / props["folder"], ignore_errors=True)


class SshAccess(dynamic.Resource, module="calico-lab", name="SshAccess"):
    """The files with which `ssh -F <config> <host>` reaches every host of the lab."""

    config: Output[str]
    """Path of the ssh_config(5), from the project's folder; known once the resource exists."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        login: Login,
        opts: ResourceOptions | None = None,
    ) -> None:
        props = {
            "folder": access_folder(),
            "hosts": [vars(endpoint) for endpoint in endpoints],
            "private_key": None if login.identity else login.private_key,
            "identity": str(login.identity or ""),
            "known": None,
        }
        secret = ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(_SshAccessProvider(), name, props, ResourceOptions.merge(opts, secret))
        # Not an output of the provider, because that would be unknown in the preview of an update, and so
        # would every ssh command.
        folder = access_folder()
        self.config = self.id.apply(lambda _: f"{folder}/config")
