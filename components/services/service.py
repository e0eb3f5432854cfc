"""A service of the lab: a container of one of its images on one host, with its files and its volume.

Owes: `services_ready` waits until containers are healthy, and reports one that is not with its last lines. A
container is replaced when its image, host, address or files change. Secrets are in files that only the user
of the image can read, and neither in the environment nor in arguments.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, Resource, ResourceOptions

from components.calico.policy_rendering import SERVICE_LABEL
from components.hosts.host import Host
from components.readiness.gate import Check, Gate
from components.services.config import ServiceConfig
from components.services.image import service_image
from components.services.placement import Placement

FILES = "/run/secrets"
"""The folder of a service's files in its container."""
SECONDS_ALLOWED = 60
STACK_LABEL = "calico-lab.stack"
ENDPOINT_LABEL = f"org.projectcalico.label.{SERVICE_LABEL}"
"""Becomes a label of the service's workload endpoint, for network policies."""
HOST_LABEL = "calico-lab.host"
"""Replaces a container that moves to another host, because a change of the provider alone does not."""
FILES_LABEL = "calico-lab.files"
"""Changes with the contents of the service's files."""
_SCRIPTS = Path(__file__).with_name("scripts")
READY_SCRIPT = _SCRIPTS / "ready.sh"
"""Waits until a container passes the health check of its image."""


@dataclass(frozen=True)
class ServiceFile:
    """A file that a service reads."""

    name: str
    content: Input[str]
    secret: bool = True
    """Whether the image's user alone may read it."""


@dataclass(frozen=True)
class ServiceFolder:
    """Files that a service follows while it runs, so that a change does not replace its container."""

    name: str
    path: str
    """Where its container has the folder."""
    files: Sequence[ServiceFile]


@dataclass(frozen=True)
class ServiceVolume:
    """A folder of a service that is kept when its container is replaced."""

    name: str
    path: str


class Service:
    """One container, and the files and the volume that it uses."""

    container: docker.Container
    check: Check
    """What `services_ready` waits for."""

    def __init__(
        self,
        name: str,
        config: ServiceConfig,
        host: Host,
        *,
        image: str,
        parent: Resource,
        user: int,
        files: Sequence[ServiceFile],
        folders: Sequence[ServiceFolder] = (),
        volume: ServiceVolume | None = None,
        environment: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
        networks: Sequence[docker.ContainerNetworksAdvancedArgs] | None = None,
        network_mode: str | None = None,
        policy_name: str | None = None,
        read_only: bool = False,
    ) -> None:
        """Run the service.

        Args:
            name: The container is called `calico-lab-<name>`.
            config: Its section.
            host: The host that runs it.
            image: The image, `calico-lab/<image>`, which is built and loaded into the host's engine.
            parent: The component that it is a part of.
            user: The ID, in the image, of the user and group that its secret files belong to.
            files: Its files under `/run/secrets`.
            folders: Its folders, which are mounted as a whole, so that it sees a replaced file.
            volume: The folder that is kept when the container is replaced.
            environment: Its settings; never secret.
            capabilities: Its Linux capabilities; all others are dropped.
            networks: Its Docker networks.
            network_mode: `host`, for a service without a network of its own.
            policy_name: Its name in network policies; None if it is not on the lab's network.
            read_only: Whether its root file system is read only.
        """
        self._name = name
        self._host = host
        self._parent = parent
        all_files = {self._path(file): file for file in files} | {
            f"{self._folder(folder)}/{file.name}": file for folder in folders for file in folder.files
        }
        placed = host.install(
            name,
            files={path: file.content for path, file in all_files.items() if not file.secret},
            secrets={path: file.content for path, file in all_files.items() if file.secret},
            owner=f"{user}:{user}",
            opts=ResourceOptions(parent=parent),
        )
        self.container = docker.Container(
            name,
            name=self._container_name,
            hostname=name,
            image=service_image(image, host, ResourceOptions(parent=parent)),
            # An init process reaps orphans and forwards signals.
            init=True,
            envs=[f"{key}={value}" for key, value in (environment or {}).items()],
            networks_advanced=networks,
            network_mode=network_mode,
            mounts=[
                *(self._bind(self._path(file), f"{FILES}/{file.name}") for file in files),
                *(self._bind(self._folder(folder), folder.path) for folder in folders),
                *([self._volume_mount(volume)] if volume else []),
            ],
            read_only=read_only,
            memory=config.memory,
            # By default Docker adds as much swap, which the provider would report as drift.
            memory_swap=config.memory,
            cpus=str(config.cpus),
            capabilities=docker.ContainerCapabilitiesArgs(
                drops=["ALL"], adds=[f"CAP_{capability}" for capability in capabilities]
            ),
            # It stops programs with file capabilities, such as ping.
            security_opts=None if capabilities else ["no-new-privileges"],
            log_driver="json-file",
            log_opts={"max-size": "10m", "max-file": "2"},
            restart="unless-stopped",
            destroy_grace_seconds=5,
            labels=[
                docker.ContainerLabelArgs(label=STACK_LABEL, value=pulumi.get_stack()),
                docker.ContainerLabelArgs(label=HOST_LABEL, value=host.name),
                docker.ContainerLabelArgs(label=FILES_LABEL, value=_digest(files)),
                *(
                    [docker.ContainerLabelArgs(label=ENDPOINT_LABEL, value=policy_name)]
                    if policy_name
                    else []
                ),
            ],
            # Name and address are fixed, so the former container has to be deleted first.
            opts=host.docker_options(
                ResourceOptions(parent=parent, depends_on=[placed], delete_before_replace=True)
            ),
        )
        self.check = Check(host, {"CONTAINER": self._container_name})

    @property
    def _container_name(self) -> str:
        return f"calico-lab-{self._name}"

    def _path(self, file: ServiceFile) -> str:
        return f"/etc/calico-lab/{self._name}/{file.name}"

    def _folder(self, folder: ServiceFolder) -> str:
        return f"/etc/calico-lab/{self._name}-{folder.name}"

    @staticmethod
    def _bind(source: str, target: str) -> docker.ContainerMountArgs:
        return docker.ContainerMountArgs(type="bind", source=source, target=target, read_only=True)

    def _volume_mount(self, volume: ServiceVolume) -> docker.ContainerMountArgs:
        child = ResourceOptions(parent=self._parent)
        Placement(f"{self._name}-place", self._container_name, self._host.location, volume.path, opts=child)
        moved = ResourceOptions(replacement_trigger=self._host.location)
        made = docker.Volume(
            f"{self._name}-{volume.name}",
            name=f"{self._container_name}-{volume.name}",
            labels=[docker.VolumeLabelArgs(label=STACK_LABEL, value=pulumi.get_stack())],
            opts=self._host.docker_options(ResourceOptions.merge(child, moved)),
        )
        return docker.ContainerMountArgs(type="volume", source=made.name, target=volume.path)


def _digest(files: Sequence[ServiceFile]) -> Output[str]:
    """A digest of the files' contents. A service reads its files when it starts, so a change replaces it.

    The contents are random keys of 256 bits, so the digest reveals nothing.
    """
    contents = Output.all(*[file.content for file in files])
    return Output.unsecret(
        contents.apply(lambda texts: hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16])
    )


def services_ready(name: str, services: Sequence[Service], opts: ResourceOptions | None = None) -> Gate:
    """Wait until the containers of some services pass their health checks.

    Args:
        name: The resource's name.
        services: The services.
        opts: More resource options.
    """
    containers = [service.container for service in services]
    return Gate(
        name,
        READY_SCRIPT,
        [service.check for service in services],
        seconds=SECONDS_ALLOWED,
        triggers=[container.id for container in containers],
        opts=ResourceOptions.merge(ResourceOptions(depends_on=containers), opts),
    )
