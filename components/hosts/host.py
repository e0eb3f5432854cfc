"""A host of the lab: how resources run scripts and install components on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import CustomResource, Input, Output, Resource, ResourceOptions
from pulumi_command import remote

from components.hosts.files import digest, render
from components.hosts.remote import as_root, with_variables

_SCRIPTS = Path(__file__).with_name("scripts")


@dataclass(frozen=True)
class Host:
    """One host, and how it is reached."""

    name: str
    address: str
    user: str
    connection: remote.ConnectionArgs
    ssh_config: Output[str]
    """Path, from the project's folder, of an ssh_config(5) for the host."""
    url: str
    """`ssh://user@address:port`. Unlike the name, it always means the same host."""
    ready: Sequence[Resource]
    """The resources on which every resource on the host depends."""
    container: CustomResource | None
    """The host container, passed as `deleted_with`: when it is deleted, delete scripts on the host are
    skipped. None for a host that existed before the lab."""
    network: CustomResource | None = None
    """The Docker network of the host containers, which is deleted only with all of them; else None."""
    replacement_digest: str = ""
    """Hash of all inputs that replace the host container; known at preview. Empty without a container."""
    lost: bool = False
    """Whether the host is gone for good: its resources leave the stack without running delete scripts."""
    exists: Mapping[str, Input[Any]] | None = None
    """How it is reached before the stack has SSH access, as from `Endpoint.reached_by`; None for a host
    container."""

    @property
    def ssh(self) -> Output[str]:
        """An ssh command that reaches the host during any update; run it in the project's folder."""
        return self.ssh_config.apply(self.ssh_with)

    def ssh_with(self, config: str) -> str:
        """An ssh command that reaches the host with an ssh_config(5)."""
        return f"ssh -F {config} {self.url}"

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
        """The container's ID, as the variable `HOST_CONTAINER` of scripts.

        A replaced container changes the command, so Pulumi runs it again, as an update.

        `replace_with` would replace the command instead, and Pulumi would run its delete script first,
        whatever `deleted_with` says. Existing hosts have none: when one is exchanged, what is on the former
        one has to be removed.
        """
        return {"HOST_CONTAINER": self.container.id} if self.container else {}

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

    def run(
        self,
        name: str,
        script: Path,
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
            script: A bash script in the component's folder.
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
        return self._command(
            name if once else f"{self.name}-{name}",
            create=self._line(script, values),
            delete=self._line(delete, values) if delete else None,
            stdin=stdin,
            triggers=list(triggers) or None,
            opts=self.options(opts, once=once),
        )

    def _command(
        self,
        name: str,
        *,
        create: Output[str],
        delete: Output[str] | None,
        stdin: Input[str] | None,
        opts: ResourceOptions,
        triggers: Sequence[Input[object]] | None = None,
    ) -> remote.Command:
        return remote.Command(
            name,
            connection=self.connection,
            create=create,
            delete=delete,
            stdin=stdin,
            triggers=triggers,
            logging=remote.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=opts,
        )

    def _line(self, script: Path, variables: Mapping[str, Input[str]]) -> Output[str]:
        """The command line that runs a script with variables."""
        text = script.read_text()
        # The SDK spends time on each output, so known text is kept out of outputs.
        known = {name: value for name, value in variables.items() if isinstance(value, str)}
        others = {name: value for name, value in variables.items() if name not in known}

        def line(values: Mapping[str, str]) -> str:
            return as_root("bash", "-c", with_variables(text, {**known, **values}))

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
        finish: Path | None = None,
        stop: Path | Sequence[Path] = (),
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
            finish: A bash script that runs at the end, whether `start` was run or not; for what changes
                without a restart of `unit`.
            stop: Bash scripts that undo these two, before the files are removed. None of them exits.
            unit: The unit that `start` starts. While it runs, `start` is run only when `config` changes.
            config: What the unit was started with, as text.
            variables: Exported to the scripts; never secret.
            opts: More resource options, usually the parent.
        """
        own = {"HOST": self.name, **(variables or {})}
        stops = [stop] if isinstance(stop, Path) else stop
        stop_text = "\n".join(script.read_text() for script in stops) or "true"
        install: dict[str, Input[str]] = {
            **own,
            **self.container_variable,
            "COMPONENT": component,
            "PACKAGES": " ".join(packages),
            "MASK": " ".join(mask),
            "FILES": _rendered(files or {}),
            "SECRETS": "yes" if secrets else "",
            "OWNER": owner,
            "START": start.read_text() if start else "true",
            "FINISH": finish.read_text() if finish else "",
            "STOP": with_variables(stop_text, own),
            "UNIT": unit,
            "CONFIG": config,
        }
        return self._command(
            f"{self.name}-{component}",
            create=self._line(_SCRIPTS / "install.sh", install),
            delete=self._line(_SCRIPTS / "remove.sh", {"COMPONENT": component}),
            stdin=_rendered(secrets) if secrets else None,
            opts=self.options(opts),
        )


def _rendered(files: Mapping[str, Input[str]]) -> Input[str]:
    known = {path: text for path, text in files.items() if isinstance(text, str)}
    return render(known) if len(known) == len(files) else Output.all(**files).apply(render)


def ssh_commands(hosts: Sequence[Host]) -> Input[dict[str, str]]:
    """The ssh command of each host, by name. All hosts of a lab have the same ssh_config(5)."""
    if not hosts:
        return {}
    return hosts[0].ssh_config.apply(lambda config: {host.name: host.ssh_with(config) for host in hosts})


def after_hosts(hosts: Iterable[Host], opts: ResourceOptions | None = None) -> ResourceOptions:
    """Options for a resource that depends on several hosts, and is on none of them."""
    ready = [resource for host in hosts for resource in host.ready]
    return ResourceOptions.merge(ResourceOptions(depends_on=ready), opts)


def digest_of(commands: Iterable[remote.Command]) -> Output[str]:
    """Changes when one of the commands runs again."""
    return Output.all(*[command.create for command in commands]).apply(
        lambda texts: digest([str(text) for text in texts])
    )
