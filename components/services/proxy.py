"""HttpProxy: configurable-http-proxy on a host's own address, in front of one target.

Owes: it answers whether or not its target does; its API listens on the loopback interface alone and asks for
a generated token; while the target does not answer, a page says what to check.
"""

from dataclasses import dataclass

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.hosts.host import Host
from components.services.config import ProxyConfig
from components.services.service import Service, ServiceFile
from components.shared.secrets import Token

USER = 8001
"""The id of the image's user."""


@dataclass(frozen=True)
class Route:
    """A notebook, and where the proxy finds it."""

    name: str
    path: str
    target: Input[str]
    host: Input[str]
    enabled: bool


class HttpProxy(ComponentResource):
    """An HTTP proxy, websockets included, from a host's address to one target."""

    url: str
    """Where it will answer."""
    service: Service
    """Its container."""
    api_token: Output[str]
    """The token for its API (secret)."""

    def __init__(
        self,
        name: str,
        config: ProxyConfig,
        host: Host,
        *,
        target: str,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the proxy.

        Args:
            name: The component's name, and part of its container's.
            config: Its section.
            host: The host that the section names.
            target: The URL that all requests go to.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:HttpProxy", name, None, opts)
        token = Token(f"{name}-api-token", opts=ResourceOptions(parent=self))
        self.service = Service(
            name,
            config,
            host,
            image="proxy",
            parent=self,
            user=USER,
            files=[ServiceFile("api-token", token.value)],
            environment={
                "PROXY_ADDRESS": host.address,
                "PROXY_PORT": str(config.port),
                "PROXY_API_PORT": str(config.api_port),
                "PROXY_TARGET": target,
            },
            network_mode="host",
            read_only=True,
        )
        self.url = f"http://{host.address}:{config.port}"
        self.api_token = token.value
        self.register_outputs({"url": self.url, "apiToken": self.api_token})
