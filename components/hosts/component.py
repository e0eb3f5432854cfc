"""Hosts: creates host containers or takes existing hosts, and makes each ready for the other components.

`provider: docker` creates the hosts as systemd containers on the controller's Docker engine, with fixed
addresses, and optionally a visitor: a plain host on the same network that has no component of the lab.
`provider: existing` takes hosts that the operator has. For the other components both are a `Host`: an SSH
connection with a pinned host key.

Owes: resources on a host wait until it answers SSH, is a supported release and runs Docker. An unreachable
host is an error after a bounded wait. Deletion leaves an existing host as it was before. A replaced host
container gets everything again that was on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pulumi import ComponentResource, Output, ResourceOptions, RunError
from pulumi_command import remote
from pulumi_docker import Provider as DockerProvider

from components.hosts.config import DockerHosts, ExistingHosts, HostsConfig
from components.hosts.container import HostContainer, HostNetwork, interface_in
from components.hosts.files import render
from components.hosts.host import Host
from components.hosts.keys import derive_key
from components.hosts.known import host_key
from components.hosts.ssh import Endpoint, Login, SshAccess
from components.shared.secrets import SshKey, Token

# An engine that the host has, from docker-ce for example, is used as it is. From Debian 13 on, docker.io has
# no client. docker.io only recommends apparmor, and without it starts no container where the kernel has
# AppArmor. `lab trace` and `lab why` send echo-requests with ping.
PACKAGES = [
    *("docker.io|dockerd", "docker-cli|docker", "apparmor", "iptables", "ipset", "nftables"),
    *("iproute2", "iputils-ping|ping"),
]
TOOLS = ("packages.sh", "purge-packages.sh", "place-files.sh", "remove-files.sh", "uninstall.sh")
"""The scripts that every host keeps: they install and remove components."""
_SCRIPTS = Path(__file__).with_name("scripts")


def _require_free(config: DockerHosts) -> None:
    in_use = interface_in(config.network, Path("/proc/net/route").read_text())
    if in_use:
        raise RunError(
            f"hosts.network {config.network} is in use on this machine by {in_use}; "
            "give hosts.network, and the addresses in it, another private network"
        )


class Hosts(ComponentResource):
    """The hosts of the lab."""

    members: dict[str, Host]
    """The hosts by name, in the order of the config."""
    visitor: Host | None
    """The host outside the lab, from which firewall policies are tried."""
    addresses: Output[dict[str, str]]
    """Address by host name."""
    ssh: Output[dict[str, str]]
    """An ssh command by host, also for the visitor; run it in the project's folder."""

    def __init__(
        self,
        name: str,
        config: HostsConfig,
        components: Mapping[str, Sequence[str]],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Create the hosts, or take existing ones.

        Args:
            name: The component's name.
            config: Its section.
            components: What `Host.install` will install on each host, by name. What an interrupted
                installation left of any other component is removed.
            opts: More resource options.
        """
        if isinstance(config, DockerHosts):
            _require_free(config)
        super().__init__("calico-lab:index:Hosts", name, None, opts)
        self._child = ResourceOptions(parent=self)
        self._components = components
        if isinstance(config, DockerHosts):
            endpoints, containers, login = self._make(config)
        else:
            endpoints, containers, login = self._take(config)
        access = SshAccess("ssh-access", endpoints, login, opts=self._child)
        hosts = {
            endpoint.alias: self._host(endpoint, login, containers.get(endpoint.alias), access)
            for endpoint in endpoints
        }
        self.members = {member: hosts[member] for member in config.members}
        self.visitor = hosts.get("visitor")
        self.addresses = Output.from_input({member: host.address for member, host in self.members.items()})
        self.ssh = access.config.apply(lambda path: {alias: f"ssh -F {path} {alias}" for alias in hosts})
        self.register_outputs({"addresses": self.addresses, "sshConfig": access.config})

    def _make(self, config: DockerHosts) -> tuple[list[Endpoint], dict[str, HostContainer], Login]:
        """Create the host containers on the controller's Docker engine."""
        controller = DockerProvider("controller")
        on_controller = ResourceOptions(parent=self, provider=controller)
        operator = SshKey("operator", opts=self._child)
        secret = Token("host-keys", opts=self._child).value
        network = HostNetwork(config.network, config.release, operator, on_controller)
        endpoints: list[Endpoint] = []
        containers: dict[str, HostContainer] = {}
        visitor = {"visitor": config.visitor} if config.visitor else {}
        for alias, asked in {**config.members, **visitor}.items():
            address = str(asked.address)
            key = secret.apply(partial(derive_key, host=alias))
            containers[alias] = HostContainer(
                alias,
                network=network,
                address=address,
                mac=asked.mac,
                host_key=key.private_key,
                operator=operator,
                docker_engine=alias != "visitor",
                opts=on_controller,
            )
            endpoints.append(Endpoint(alias, address, 22, "root", Output.unsecret(key.public_key)))
        return endpoints, containers, Login(operator.private_key)

    def _take(self, config: ExistingHosts) -> tuple[list[Endpoint], dict[str, HostContainer], Login]:
        """Take the hosts that the operator has."""
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
        self, endpoint: Endpoint, login: Login, container: HostContainer | None, access: SshAccess
    ) -> Host:
        reachable = Host(
            name=endpoint.alias,
            address=endpoint.address,
            user=endpoint.user,
            connection=remote.ConnectionArgs(
                host=endpoint.address,
                port=endpoint.port,
                user=endpoint.user,
                # Without a key the plugin asks the ssh-agent at SSH_AUTH_SOCK. The path is not an input,
                # because it changes with each session of the operator.
                private_key=login.private_key,
                host_key=endpoint.host_key,
                # A host container answers within seconds. A host that is down is an error within a minute.
                dial_error_limit=20,
                per_dial_timeout=3,
            ),
            ssh_config=access.config,
            url=endpoint.url,
            ready=[container.resource] if container else [],
            container=container.resource if container else None,
            network=container.network if container else None,
            replacement_digest=container.replacement_digest if container else "",
            lost=endpoint.lost,
            exists=None if container else endpoint.reached_by(login),
        )
        role = "the visitor, outside the lab" if endpoint.alias == "visitor" else "a host of the lab"
        prepared = reachable.run(
            "prepare",
            _SCRIPTS / "prepare.sh",
            delete=_SCRIPTS / "unprepare.sh",
            variables={
                "HOST": endpoint.alias,
                "LOGIN": endpoint.user,
                "ROLE": role,
                "COMPONENTS": " ".join(["docker", *self._components.get(endpoint.alias, ())]),
            },
            stdin=render({tool: (_SCRIPTS / tool).read_text() for tool in TOOLS}),
            opts=self._child,
        )
        if endpoint.alias == "visitor":
            return replace(reachable, ready=[prepared, access])
        engine = reachable.install(
            "docker",
            packages=PACKAGES,
            start=_SCRIPTS / "engine.sh",
            stop=_SCRIPTS / "remove-engine.sh",
            variables={"LOGIN": endpoint.user},
            opts=ResourceOptions(parent=self, depends_on=[prepared]),
        )
        return replace(reachable, ready=[prepared, access, engine])
