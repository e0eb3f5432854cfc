"""NotebookService: JupyterLab in a container on the lab's network, open to whoever has its token.

Owes: what is saved in its work folder outlives its container; the token is nowhere in the clear but in a file
that the notebook's user alone can read.
"""

import pulumi_docker as docker
from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.hosts.host import Host
from components.services.config import NOTEBOOK_PORT, NotebookConfig
from components.services.service import Service, ServiceFile, ServiceVolume
from components.shared.secrets import Token

USER = 8888
"""The ID of the image's user."""
WORK = "/home/notebook/work"
"""The folder that is kept when the container is replaced."""


class NotebookService(ComponentResource):
    """A Jupyter notebook at a fixed address of the container network."""

    url: str
    """Where it will answer on the container network."""
    service: Service
    """Its container."""
    token: Output[str]
    """The token that opens it (secret)."""

    def __init__(
        self,
        name: str,
        config: NotebookConfig,
        host: Host,
        *,
        network: Input[str],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the notebook.

        Args:
            name: The component's name, and part of its container's.
            config: Its section.
            host: The host that the section names.
            network: The Docker network's name on that host.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:NotebookService", name, None, opts)
        token = Token(f"{name}-token", opts=ResourceOptions(parent=self))
        self.service = Service(
            name,
            config,
            host,
            image="notebook",
            parent=self,
            user=USER,
            files=[ServiceFile("token", token.value)],
            volume=ServiceVolume("work", WORK),
            networks=[docker.ContainerNetworksAdvancedArgs(name=network, ipv4_address=str(config.address))],
            policy_name="notebook",
        )
        self.url = f"http://{config.address}:{NOTEBOOK_PORT}"
        self.token = token.value
        self.register_outputs({"url": self.url, "token": self.token})
