"""ServiceImage: an image of the lab, built once and brought to the hosts that run it.

It is built on the controller's Docker engine, where its layers stay cached, and which has the images that it
starts from. There is no registry: the image goes over SSH, from engine to engine, once for each id.

Owes: an id that is an output here is that of an image that is there, on that host.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pulumi_docker as docker
from pulumi import ComponentResource, Input, Output, ResourceOptions
from pulumi_command import local

from components.hosts.host import Host
from components.shared.build_context import context_digest

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Docker knows these for every build (Dockerfile reference, "Predefined ARGs")."""
REGISTRIES = ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY")
_SCRIPTS = Path(__file__).with_name("scripts")


def build_arguments(dockerfile: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Choose what a build gets of the operator's environment: the proxies and package registries in use.

    Args:
        dockerfile: Its text; a registry is given to an image that declares it.
        environment: The operator's.
    """
    declared = re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)
    names = (*PROXIES, *(name for name in REGISTRIES if name in declared))
    return {name: environment[name] for name in names if environment.get(name)}


class ServiceImage(ComponentResource):
    """An image built from a folder, on each host that runs it."""

    image_ids: dict[str, Output[str]]
    """The image's id by host, once it is there."""

    def __init__(
        self,
        name: str,
        folder: str,
        hosts: Sequence[Host],
        *,
        ssh_config: Input[str],
        controller: docker.Provider,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Build the image and bring it to the hosts.

        Args:
            name: The image is called `calico-lab/<name>`.
            folder: The build context, from the project's folder.
            hosts: The hosts that run it.
            ssh_config: An ssh_config(5) with an alias for each host.
            controller: The controller's own engine, to build on.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:ServiceImage", name, None, opts)
        self._name = f"calico-lab/{name}:latest"
        self._ssh_config = ssh_config
        self._image = docker.RemoteImage(
            f"{name}-image",
            name=self._name,
            build=docker.RemoteImageBuildArgs(
                context=folder,
                build_args={
                    key: Output.secret(value)
                    for key, value in build_arguments(
                        (Path(folder) / "Dockerfile").read_text(), os.environ
                    ).items()
                },
                # The provider's other builder needs a buildx that Debian does not package.
                use_legacy_builder=True,
            ),
            triggers={"context": context_digest(Path(folder))},
            # For the next lab.
            keep_locally=True,
            opts=ResourceOptions(parent=self, provider=controller),
        )
        self.image_ids = {host.name: self._bring(name, host) for host in hosts}
        self.register_outputs({"imageIds": self.image_ids})

    def _bring(self, name: str, host: Host) -> Output[str]:
        """Bring the image to a host, and know it by the id that it has there.

        The id is the same on engines of one kind; the containerd image store counts differently.
        """
        transfer = local.Command(
            f"{host.name}-{name}-image",
            interpreter=["/bin/bash", "-c"],
            create=(_SCRIPTS / "transfer.sh").read_text(),
            delete=(_SCRIPTS / "remove.sh").read_text(),
            environment={
                "IMAGE": self._name,
                "IMAGE_ID": self._image.image_id,
                "HOST": host.name,
                "DESTINATION": host.url,
                "SSH_CONFIG": self._ssh_config,
                **host.identity,
            },
            triggers=[self._image.image_id],
            logging=local.Logging.STDERR,
            opts=host.options(ResourceOptions(parent=self)),
        )
        return transfer.stdout
