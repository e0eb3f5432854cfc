"""Hosts: the machines of the lab, and the one way to reach each of them.

`provider: docker` makes the machines as systemd containers on the controller's Docker engine, with fixed
addresses, and optionally a visitor: a plain machine on the same network that belongs to no cluster.
`provider: existing` takes machines that the operator has. After that both are the same: a `Host` with an SSH
connection whose host key is pinned, and a Docker provider that goes through the same SSH.

Owes: a `Host` is usable by others only once it has answered SSH, is a supported release and runs Docker; an
unreachable host is an error after a bounded wait; deleting puts an existing machine back as it was. A machine
that is made anew under its name gets everything anew that was on it.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import ComponentResource, CustomResource, Input, Output, Resource, ResourceOptions, RunError
from pulumi_command import remote
from pulumi_docker import Provider as DockerProvider

from components.hosts.config import DockerHosts, ExistingHosts, HostsConfig
from components.hosts.files import render
from components.hosts.known import host_key
from components.hosts.machine import Machine, MachineNetwork, interface_in, plan
from components.hosts.ssh import Endpoint, Login, SshAccess
from components.secrets import SshKey

__all__ = ["DockerHosts", "ExistingHosts", "Host", "Hosts", "HostsConfig", "with_variables"]

# An engine that a machine has, that of docker-ce for example, is taken as it is. From Debian 13 on, docker.io
# has no client. It only recommends apparmor, and starts nothing without it where the kernel has AppArmor.
# ping sends the echo-requests of `lab trace` and `lab why`, in whatever package it came.
PACKAGES = [
    *("docker.io|dockerd", "docker-cli|docker", "apparmor", "iptables", "ipset", "nftables"),
    *("iproute2", "iputils-ping|ping"),
]
_HERE = Path(__file__).parent


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


def _require_free(config: DockerHosts) -> None:
    in_use = interface_in(config.network, Path("/proc/net/route").read_text())
    if in_use:
        raise RunError(
            f"hosts.network {config.network} is in use on this machine by {in_use}; "
            "give hosts.network, and the addresses in it, another private network"
        )


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
            delete: A script that undoes it; it gets the same variables. When it fails, what the resource
                depends on is not removed either.
            variables: Exported to both scripts; never secret. So is `MACHINE`, which `identity` explains.
            stdin: What the script reads from standard input; may be secret.
            triggers: Values whose change runs the script again, by replacing the resource.
            once: There is one of it in the lab, whichever host it is done from. The resource is called
                `<name>`: another host takes it over, and the host before does not undo it.
            opts: More resource options, usually the parent.
        """
        exports: Output[dict[str, str]] = Output.all(**self.identity, **(variables or {}))

        def command(path: Path | None) -> Output[str] | None:
            if path is None:
                return None
            text = path.read_text()
            return exports.apply(lambda values: as_root(with_variables(text, values), self.user))

        return remote.Command(
            name if once else f"{self.name}-{name}",
            connection=self.connection,
            create=command(script),
            delete=command(delete),
            stdin=stdin,
            triggers=list(triggers) or None,
            logging=remote.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=self.options(opts, once=once),
        )

    def files(
        self,
        name: str,
        files: Mapping[str, Input[str]],
        *,
        mode: str = "0644",
        owner: str = "root:root",
        opts: ResourceOptions | None = None,
    ) -> remote.Command:
        """Place text files that belong together; one that is no longer named is removed, and all at deletion.

        A component's configuration is a handful of small files: one command for all of them is a tenth of the
        connections, and one diff in the preview that reads like the files.

        Args:
            name: The resource is called `<host>-<name>`.
            files: Text by absolute path; it travels by stdin and may be secret. One in /usr/local/bin is a
                program, whose text names the lab's folders: a file that does not is the owner's and stays.
                Several components may place the same file; it goes with the last of them.
            mode: Octal mode of each that is no program.
            owner: `user:group` of each, by name or number.
            opts: More resource options, usually the parent.
        """
        return self.run(
            name,
            _HERE / "place-files.sh",
            delete=_HERE / "remove-files.sh",
            variables={"HOST": self.name, "NAME": name, "MODE": mode, "OWNER": owner},
            stdin=Output.all(**files).apply(render),
            opts=opts,
        )

    def packages(
        self,
        name: str,
        packages: Sequence[str],
        *,
        mask: Sequence[str] = (),
        opts: ResourceOptions | None = None,
    ) -> remote.Command:
        """Install the Debian packages that are missing; deletion purges those and no others.

        Args:
            name: The resource is called `<host>-<name>`, and what purges them `<host>-<name>-removal`.
            packages: Package names, from the host's own apt sources. `package|program` is for the program, in
                whatever package the release has it, or whoever has brought it already.
            mask: Units that the packages bring and that must never run.
            opts: More resource options, usually the parent.
        """
        # Made before them: the engine forgets a resource whose creation failed, and apt can fail half-way.
        removal = self.run(
            f"{name}-removal",
            None,
            delete=_HERE / "purge-packages.sh",
            variables={"NAME": name},
            opts=opts,
        )
        return self.run(
            name,
            _HERE / "packages.sh",
            variables={"NAME": name, "PACKAGES": " ".join(packages), "MASK": " ".join(mask)},
            opts=ResourceOptions.merge(opts, ResourceOptions(depends_on=[removal])),
        )


class Hosts(ComponentResource):
    """The lab's machines, ready to be used."""

    members: dict[str, Host]
    """The machines of the lab by name, in the order of the config."""
    visitor: Host | None
    """The machine outside the lab, from which firewall policies are tried."""
    controller: DockerProvider
    """The controller's own Docker engine, on which images are built, and machines live that are made."""
    ssh_config: Output[str]
    """Path, from the project's folder, of an ssh_config(5) with an alias for every machine."""
    addresses: Output[dict[str, str]]
    """Address by host name."""
    ssh: Output[dict[str, str]]
    """A ready ssh command by machine, the visitor's too; it is run in the project's folder."""

    def __init__(self, name: str, config: HostsConfig, opts: ResourceOptions | None = None) -> None:
        if isinstance(config, DockerHosts):
            _require_free(config)
        super().__init__("calico-lab:index:Hosts", name, None, opts)
        self._child = ResourceOptions(parent=self)
        self._plans: dict[str, str] = {}
        self.controller = DockerProvider("controller", opts=self._child)
        if isinstance(config, DockerHosts):
            endpoints, machines, login = self._make(config)
            self._plans = {
                name: plan(config.network, config.release, str(member.address), member.mac)
                for name, member in config.members.items()
            }
        else:
            endpoints, machines, login = self._take(config)
        access = SshAccess("ssh-access", endpoints, login, opts=self._child)
        self.ssh_config = access.config
        hosts = {
            endpoint.alias: self._host(endpoint, login, machines.get(endpoint.alias), access)
            for endpoint in endpoints
        }
        self.members = {member: hosts[member] for member in config.members}
        self.visitor = hosts.get("visitor")
        self.addresses = Output.from_input({member: host.address for member, host in self.members.items()})
        self.ssh = access.config.apply(lambda path: {alias: f"ssh -F {path} {alias}" for alias in hosts})
        self.register_outputs({"addresses": self.addresses, "sshConfig": self.ssh_config})

    def _make(self, config: DockerHosts) -> tuple[list[Endpoint], dict[str, CustomResource], Login]:
        """Make the machines as containers of the controller's Docker engine."""
        on_controller = ResourceOptions(parent=self, provider=self.controller)
        operator = SshKey("operator", opts=self._child)
        network = MachineNetwork(config.network, config.release, operator, on_controller)
        endpoints: list[Endpoint] = []
        machines: dict[str, CustomResource] = {}
        visitor = {"visitor": config.visitor} if config.visitor else {}
        for alias, asked in {**config.members, **visitor}.items():
            address = str(asked.address)
            key = SshKey(f"{alias}-host-key", opts=self._child)
            machine = Machine(
                alias,
                network=network,
                address=address,
                mac=asked.mac,
                host_key=key,
                operator=operator,
                docker_engine=alias != "visitor",
                opts=on_controller,
            )
            machines[alias] = machine.container
            endpoints.append(Endpoint(alias, address, 22, "root", key.public_key))
        return endpoints, machines, Login(operator.private_key)

    def _take(self, config: ExistingHosts) -> tuple[list[Endpoint], dict[str, CustomResource], Login]:
        """Take the machines that the operator has."""
        endpoints = [
            Endpoint(
                alias,
                str(member.address),
                member.port,
                member.user,
                Output.from_input(host_key(member, config.known_hosts)),
                lost=member.lost,
            )
            for alias, member in config.members.items()
        ]
        identity = config.identity
        return endpoints, {}, Login(Output.secret(identity.read_text()) if identity else None, identity)

    def _host(
        self, endpoint: Endpoint, login: Login, machine: CustomResource | None, access: SshAccess
    ) -> Host:
        reachable = Host(
            name=endpoint.alias,
            address=endpoint.address,
            user=endpoint.user,
            connection=remote.ConnectionArgs(
                host=endpoint.address,
                port=endpoint.port,
                user=endpoint.user,
                # Without one the plugin asks the ssh-agent at SSH_AUTH_SOCK. That path is not given here,
                # because it changes with each session of the operator.
                private_key=login.private_key,
                host_key=endpoint.host_key,
                # A container answers within seconds; a machine that is down is reported within a minute.
                dial_error_limit=20,
                per_dial_timeout=3,
            ),
            ssh=access.config.apply(lambda path: f"ssh -F {path} {endpoint.url}"),
            url=endpoint.url,
            ready=[machine] if machine else [],
            machine=machine,
            plan=self._plans.get(endpoint.alias, ""),
            lost=endpoint.lost,
            exists=None if machine else endpoint.reached_by(login),
        )
        role = "the visitor, outside the lab" if endpoint.alias == "visitor" else "a host of the lab"
        prepared = reachable.run(
            "prepare",
            _HERE / "prepare.sh",
            delete=_HERE / "unprepare.sh",
            variables={"HOST": endpoint.alias, "LOGIN": endpoint.user, "ROLE": role},
            opts=self._child,
        )
        if endpoint.alias == "visitor":
            return Host(**{**reachable.__dict__, "ready": [prepared, access]})
        packages = reachable.packages(
            "docker", PACKAGES, opts=ResourceOptions(parent=self, depends_on=[prepared])
        )
        variables = {"HOST": endpoint.alias, "LOGIN": endpoint.user}
        # Made before it, as with packages: an engine may have been changed, and yet not answer in time.
        removal = reachable.run(
            "engine-removal",
            None,
            delete=_HERE / "remove-engine.sh",
            variables=variables,
            opts=ResourceOptions(parent=self, depends_on=[packages]),
        )
        engine = reachable.run(
            "engine",
            _HERE / "engine.sh",
            variables=variables,
            opts=ResourceOptions(parent=self, depends_on=[packages, removal]),
        )
        provider = DockerProvider(
            f"{endpoint.alias}-docker",
            # Known once there is access: a preview of a lab that is not there must not try to reach it. (That
            # the engine runs would be too much to ask: of a provider that is not known the engine of Pulumi
            # cannot preview what replaces with what, and fails.)
            host=access.config.apply(lambda _: endpoint.url),
            ssh_opts=access.config.apply(lambda path: ["-F", path]),
            disable_docker_daemon_check=True,
            # As an update it would remove from the new host what is on the one before.
            opts=ResourceOptions(
                parent=self,
                depends_on=[access, engine],
                replacement_trigger=None if machine else endpoint.address,
            ),
        )
        return Host(**{**reachable.__dict__, "ready": [prepared, access, engine], "docker": provider})
