"""The images of services: built on the controller's Docker engine, and loaded into the engine of a host.

The controller's engine caches the layers, and has the images that they start from. There is no registry: an
image goes from engine to engine over SSH, once for each ID.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pulumi import Output, ResourceOptions
from pulumi_command import local

from components.hosts.host import Host
from components.shared.build_context import context_digest

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Docker knows these for every build (Dockerfile reference, "Predefined ARGs")."""
REGISTRIES = ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY")
_SCRIPTS = Path(__file__).with_name("scripts")


def build_arguments(dockerfile: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Choose the build arguments from the operator's environment: proxies and package registries.

    Args:
        dockerfile: The text; an image that declares a registry gets it.
        environment: The operator's.
    """
    declared = re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)
    names = (*PROXIES, *(name for name in REGISTRIES if name in declared))
    return {name: environment[name] for name in names if environment.get(name)}


def service_image(
    name: str, host: Host, opts: ResourceOptions | None = None, *, packages: Path | None = None
) -> Output[str]:
    """Build an image on the controller's engine, and load it into that of a host.

    Args:
        name: The image is `calico-lab/<name>`, from the folder `images/<name>`.
        host: The host that runs it.
        opts: More resource options, usually the parent.
        packages: The lock file of packages to build in, in the place of the folder's `packages.lock`.

    Returns:
        The ID that the image has on the host, once it is there.
    """
    folder = Path("images") / name
    arguments = build_arguments((folder / "Dockerfile").read_text(), os.environ)
    command = local.Command(
        f"{host.name}-{name}-image",
        interpreter=["/bin/bash", "-c"],
        create=(_SCRIPTS / "image.sh").read_text(),
        delete=(_SCRIPTS / "remove-image.sh").read_text(),
        environment={
            "IMAGE": f"calico-lab/{name}:latest",
            "CONTEXT": str(folder),
            "HOST": host.name,
            "DESTINATION": host.url,
            "SSH_CONFIG": host.ssh_config,
            "BUILD_ARGUMENTS": " ".join(arguments),
            **({"PACKAGES": str(packages)} if packages else {}),
            # A proxy's URL may hold a password.
            **{key: Output.secret(value) for key, value in arguments.items()},
            **host.container_variable,
        },
        # By another registry the image gets another ID. An update would leave the one before on the host.
        triggers=[
            context_digest(folder),
            *([hashlib.sha256(packages.read_bytes()).hexdigest()] if packages else []),
            *(Output.secret(arguments[key]) for key in REGISTRIES if key in arguments),
        ],
        logging=local.Logging.STDERR,
        opts=host.options(opts),
    )
    return command.stdout
