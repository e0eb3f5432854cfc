"""A host of the lab: how resources run scripts and install components on it, and reach its Docker engine."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import CustomResource, Input, Output, Resource, ResourceOptions
from pulumi_command import remote
from pulumi_docker import Provider as DockerProvider

from components.hosts.files import render
from components.hosts.remote import with_variables

_SCRIPTS = Path(__file__).with_name("scripts")


def as_root(script: str, user: str) -> str:
    """The command line that runs a bash script as root, for an SSH user that is root or may use sudo."""
    command = f"bash -c {shlex.quote(script)}"
    return command if user == "root" else f"sudo -n {command}"


@dataclass(frozen=True)
class Host:
    """One host, and how it is reached."""

    name: str
    address: str
    user: str
    connection: remote.ConnectionArgs
    ssh: Input[str]
    """An ssh command that reaches the host during any update; run it in the project's folder."""
    url: str
    """`ssh://user@address:port`. Unlike the name, it always means the same host."""
    ready: Sequence[Resource]
    """The resources on which every resource on the host depends."""
    container: CustomResource | None
    """The host container, passed as `deleted_with`: when it is deleted, delete scripts on the host are
    skipped.
    None for a host that existed before the lab."""
    docker: DockerProvider | None = None
    replacement_digest: str = ""
    """Hash of all inputs that replace the host container; known at preview. Empty without a container."""
    lost: bool = False
    """Whether the host is gone for good: its resources leave the stack without running delete scripts."""
    exists: Mapping[str, Input[Any]] | None = None
    """How it is reached before the stack has SSH access, as from `Endpoint.reached_by`; None for a host
    container."""

    @property
    def location(self) -> str:
        """The name, with the address where another host may get the same name: says where data are kept."""
        return self.name if self.container else f"{self.name} ({self.address})"

    @property
    def replaced_with(self) -> Input[str]:
        """Replaces what a replaced host has lost: the container's ID, or the address of an existing host."""
        return self.container.id if self.container else self.address

    @property
    def container_variable(self) -> dict[str, Input[str]]:
        """The container's ID, as the variable `MACHINE` of scripts.

        A replaced container changes the command, so Pulumi runs it again, as an update.

        `replace_with` would replace the command instead, and Pulumi would run its delete script first,
        whatever `deleted_with` says. Existing hosts have none: when one is exchanged, what is on the former
        one has to be removed.
        """
        return {"MACHINE": self.container.id} if self.container else {}

    def options(self, opts: ResourceOptions | None = None, *, once: bool = False) -> ResourceOptions:
        """Options for a resource on this host.

        It depends on what makes the host ready. On a host container it goes with the container. On an
        existing host a change of the address replaces it: it is created on the new host, then deleted on the
        former one.

        Args:
            opts: More resource options.
            once: See `run`.
        """
        exists = self.container is None and not once
        return ResourceOptions.merge(
            ResourceOptions(
                depends_on=list(self.ready),
                deleted_with=self.container,
                replacement_trigger=self.address if exists else None,
                retain_on_delete=True if self.lost else None,
            ),
            opts,
        )

    def docker_options(self, opts: ResourceOptions | None = None) -> ResourceOptions:
        """Options for a Docker resource on this host; a replaced host does not have it."""
        made = ResourceOptions(provider=self.docker, replacement_trigger=self.replaced_with)
        return ResourceOptions.merge(self.options(made), opts)

    def run(
        self,
        name: str,
        script: Path | None,
        *,
        delete: Path | None = None,
        variables: Mapping[str, Input[str]] | None = None,
        stdin: Input[str] | None = None,
        triggers: Sequence[Input[object]] = (),
        once: bool = False,
        opts: ResourceOptions | None = None,
    ) -> remote.Command:
        """Run an idempotent script as root, at creation and whenever it or its input changes.

        Args:
            name: The resource is called `<host>-<name>`.
            script: A bash script in the component's folder; None where only deletion has something to do.
            delete: A script that undoes it, with the same variables. When it fails, what the resource depends
                on is not deleted.
            variables: Exported to both scripts; never secret. So is `container_variable`.
            stdin: What the script reads from standard input; may be secret.
            triggers: Values whose change runs the script again, by replacing the resource.
            once: There is one of it in the lab, whichever host it is done from. The resource is called
                `<name>`: another host takes it over, and the host before does not undo it.
            opts: More resource options, usually the parent.
        """
        values = {**self.container_variable, **(variables or {})}
        return remote.Command(
            name if once else f"{self.name}-{name}",
            connection=self.connection,
            create=self._command(script, values),
            delete=self._command(delete, values),
            stdin=stdin,
            triggers=list(triggers) or None,
            logging=remote.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=self.options(opts, once=once),
        )

    def _command(self, script: Path | None, variables: Mapping[str, Input[str]]) -> Output[str] | None:
        """The command line that runs a script with variables."""
        if script is None:
            return None
        text = script.read_text()
        # An output costs the SDK more than what it holds: text that is known already makes none.
        known = {name: value for name, value in variables.items() if isinstance(value, str)}
        others = {name: value for name, value in variables.items() if name not in known}

        def line(values: Mapping[str, str]) -> str:
            return as_root(with_variables(text, {**known, **values}), self.user)

        return Output.all(**others).apply(line) if others else Output.from_input(line({}))

    def install(
        self,
        component: str,
        *,
        packages: Sequence[str] = (),
        mask: Sequence[str] = (),
        files: Mapping[str, Input[str]] | None = None,
        secrets: Mapping[str, Input[str]] | None = None,
        owner: str = "root:root",
        start: Path | None = None,
        stop: Path | None = None,
        unit: str = "",
        config: Input[str] = "",
        variables: Mapping[str, str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> remote.Command:
        """Install a component: its packages, files and secrets, and then what starts it; one resource.

        A preview shows each changed line of `files`, because these are part of the command; `secrets` travel
        by stdin and stay hidden. An installation that was interrupted is undone by `destroy`, because the
        host has a record of it from its first moment.

        Args:
            component: The resource is called `<host>-<component>`.
            packages: Debian packages; those that are missing are installed from the host's own apt sources,
                and no others are purged at deletion. `package|program` is for a program, in whatever package
                the release has it.
            mask: Units that the packages bring and that must never run.
            files: Text by absolute path, mode 0644; never secret. A file that is no longer named is removed.
                One in /usr/local/bin is a program whose text names the lab's folders: a file that does not is
                the owner's and stays. Several components may place the same file; it goes with the last.
            secrets: Text by absolute path, mode 0600.
            owner: `user:group` of the secrets, by name or number.
            start: A bash script that starts the component when its files are there.
            stop: A bash script that undoes `start`, before the files are removed.
            unit: The unit that `start` starts. While it runs, `start` is run only when `config` changes.
            config: What the unit was started with, as text.
            variables: Exported to `start` and `stop`; never secret.
            opts: More resource options, usually the parent.
        """
        own = {"HOST": self.name, **(variables or {})}
        stop_text = stop.read_text() if stop else "true"
        install: dict[str, Input[str]] = {
            **own,
            **self.container_variable,
            "COMPONENT": component,
            "PACKAGES": " ".join(packages),
            "MASK": " ".join(mask),
            "FILES": Output.all(**files).apply(render) if files else "",
            "SECRETS": "yes" if secrets else "",
            "OWNER": owner,
            "START": start.read_text() if start else "true",
            "STOP": with_variables(stop_text, own),
            "UNIT": unit,
            "CONFIG": config,
        }
        return remote.Command(
            f"{self.name}-{component}",
            connection=self.connection,
            create=self._command(_SCRIPTS / "install.sh", install),
            delete=self._command(_SCRIPTS / "remove.sh", {"COMPONENT": component}),
            stdin=Output.all(**secrets).apply(render) if secrets else None,
            logging=remote.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=self.options(opts),
        )
