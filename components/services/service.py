"""A service of the lab: a container of one of its images on one host, with its files and its volume.

Owes: `services_ready` waits until containers are healthy, and reports one that is not with its last lines. A
container is replaced when its image, host, address or files change. Secrets are in files that only the user
of the image can read, and neither in the environment nor in arguments.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from pulumi import Input, Output, Resource, ResourceOptions

from components.hosts.docker_object import DockerObject
from components.hosts.host import Host
from components.readiness.gate import Check
from components.services.config import ServiceConfig
from components.services.image import service_image
from components.services.placement import Placement

FILES = "/run/secrets"
"""The folder of a service's files in its container."""
_SCRIPTS = Path(__file__).with_name("scripts")


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

    container: DockerObject
    address: Output[str]
    """Where it listens on its network; empty on the host's own."""
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
        network: Input[str] | None = None,
        address: IPv4Address | None = None,
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
            network: Its Docker network on that host; None for the host's own.
            address: Its address on that network; None for a free one, which it keeps as long as it is there.
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
        kept = [self._keep(volume)] if volume else []
        mounts = [
            *(_bind(self._path(file), f"{FILES}/{file.name}") for file in files),
            *(_bind(self._folder(folder), folder.path) for folder in folders),
            *([f"type=volume,source={self._volume_name(volume)},target={volume.path}"] if volume else []),
        ]
        self.container = DockerObject(
            name,
            host,
            "container",
            self._container_name,
            _SCRIPTS / "container.sh",
            variables={
                "IMAGE": service_image(image, host, ResourceOptions(parent=parent)),
                "NETWORK": network or "host",
                "ADDRESS": str(address or ""),
                "MOUNTS": "\n".join(mounts),
                "ENVIRONMENT": "\n".join(f"{key}={value}" for key, value in (environment or {}).items()),
                "CAPABILITIES": " ".join(capabilities),
                "READ_ONLY": "yes" if read_only else "",
                "SERVICE": policy_name or "",
                "FILES": _digest(files),
            },
            limits={"MEMORY": str(config.memory), "CPUS": str(config.cpus)},
            # The former container has to be deleted first: name and address are fixed, and Docker removes a
            # network only after its containers.
            opts=ResourceOptions(parent=parent, depends_on=[placed, *kept], delete_before_replace=True),
        )
        self.address = self.container.made.apply(lambda made: made.partition(" ")[2])
        self.check = Check(host, {"CONTAINER": self._container_name})

    @property
    def _container_name(self) -> str:
        return f"calico-lab-{self._name}"

    def _path(self, file: ServiceFile) -> str:
        return f"/etc/calico-lab/{self._name}/{file.name}"

    def _folder(self, folder: ServiceFolder) -> str:
        return f"/etc/calico-lab/{self._name}-{folder.name}"

    def _volume_name(self, volume: ServiceVolume) -> str:
        return f"{self._container_name}-{volume.name}"

    def _keep(self, volume: ServiceVolume) -> Resource:
        child = ResourceOptions(parent=self._parent)
        Placement(f"{self._name}-place", self._container_name, self._host.location, volume.path, opts=child)
        return DockerObject(
            f"{self._name}-{volume.name}",
            self._host,
            "volume",
            self._volume_name(volume),
            _SCRIPTS / "volume.sh",
            opts=child,
        )


def _bind(source: str, target: str) -> str:
    return f"type=bind,source={source},target={target},readonly"


def _digest(files: Sequence[ServiceFile]) -> Output[str]:
    """A digest of the files' contents. A service reads its files when it starts, so a change replaces it.

    The contents are random keys of 256 bits, so the digest reveals nothing.
    """
    contents = Output.all(*[file.content for file in files])
    return Output.unsecret(
        contents.apply(lambda texts: hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16])
    )
