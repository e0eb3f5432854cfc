"""A host: one machine of the lab, and the ways to run a script, to place a file and to reach Docker on it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import CustomResource, Input, Output, Resource, ResourceOptions
from pulumi_command import remote
from pulumi_docker import Provider as DockerProvider

from components.hosts.files import render

_SCRIPTS = Path(__file__).with_name("scripts")


def with_variables(script: str, variables: Mapping[str, str]) -> str:
    """Put exports of shell variables in front of a script.

    The values travel inside the script, because sshd refuses variables that its `AcceptEnv` does not name
    (sshd_config(5)). They are visible in the process list of the host: a secret goes by stdin instead.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    return "\n".join([*exports, script])


def as_root(script: str, user: str) -> str:
    """Make the command line that runs a bash script as root for an SSH user that is root or a sudoer."""
    command = f"bash -c {shlex.quote(script)}"
    return command if user == "root" else f"sudo -n {command}"


@dataclass(frozen=True)
class Host:
    """One machine, and the ways to run a script, to place a file and to reach Docker on it."""

    name: str
    address: str
    user: str
    connection: remote.ConnectionArgs
    ssh: Input[str]
    """An ssh command that reaches it in any update, and is run in the project's folder."""
    url: str
    """Its destination, `ssh://user@address:port`: unlike its name it never comes to mean another host."""
    ready: Sequence[Resource]
    """What has to be done before anything on the host is."""
    machine: CustomResource | None
    """The resource whose deletion makes undoing anything on the host needless, if there is one."""
    docker: DockerProvider | None = None
    plan: str = ""
    """What the machine is made by, where the lab makes it: it is made anew when this changes."""
    lost: bool = False
    """Whether it is gone for good: what is on it leaves the stack without being removed there."""
    exists: Mapping[str, Input[Any]] | None = None
    """What it is reached by before the stack has SSH access, as `Endpoint.reached_by` has it; None where the
    lab makes the host."""

    @property
    def place(self) -> str:
        """The host as one that keeps something: with its address, where another one may get its name."""
        return self.name if self.machine else f"{self.name} ({self.address})"

    @property
    def anew(self) -> Input[str]:
        """What replaces a resource that the machine in the host's place does not have."""
        return self.machine.id if self.machine else self.address

    @property
    def identity(self) -> dict[str, Input[str]]:
        """What tells the machine from one that takes its place, for the variables of a script.

        Another one has it run again, as an update. (`replace_with` would make it anew, but Pulumi then undoes
        first what is there, one by one, whatever `deleted_with` says.) Hosts that exist have none: the one
        before is there, too, and what is on it has to be undone.
        """
        return {"MACHINE": self.machine.id} if self.machine else {}

    def options(self, opts: ResourceOptions | None = None, *, once: bool = False) -> ResourceOptions:
        """Options for a resource on this host.

        After the host is ready. Where the lab has made the machine, gone when that is gone; where it exists
        already, made on the one at another address, and then removed from the one before.

        Args:
            opts: More resource options.
            once: See `run`.
        """
        exists = self.machine is None and not once
        return ResourceOptions.merge(
            ResourceOptions(
                depends_on=list(self.ready),
                deleted_with=self.machine,
                replacement_trigger=self.address if exists else None,
                retain_on_delete=True if self.lost else None,
            ),
            opts,
        )

    def docker_options(self, opts: ResourceOptions | None = None) -> ResourceOptions:
        """Options for a Docker resource on this host, which a machine in its place does not have."""
        made = ResourceOptions(provider=self.docker, replacement_trigger=self.anew)
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
            variables: Exported to both scripts; never secret. So is `MACHINE`, which `identity` explains.
            stdin: What the script reads from standard input; may be secret.
            triggers: Values whose change runs the script again, by replacing the resource.
            once: There is one of it in the lab, whichever host it is done from. The resource is called
                `<name>`: another host takes it over, and the host before does not undo it.
            opts: More resource options, usually the parent.
        """
        values = {**self.identity, **(variables or {})}
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
            **self.identity,
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
