"""HttpProxy: configurable-http-proxy on a host's own address, in front of the notebooks.

Owes: it answers whether or not a notebook does; a change of the notebooks or of its certificate does not
restart it; its API listens on the loopback interface alone and asks for a generated token; a page says what
to check while a notebook does not answer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.hosts.host import Host
from components.services.config import ProxyConfig
from components.services.service import Service, ServiceFile, ServiceFolder
from components.shared.secrets import Certificate, CertificateAuthority, Token

USER = 8001
"""The id of the image's user."""
ROUTES, TLS = "/run/routes", "/run/tls"
"""The folders that the image follows."""


@dataclass(frozen=True)
class Route:
    """A notebook behind the proxy."""

    name: str
    path: str
    """Its URL path; begins and ends with a slash."""
    target: Input[str]
    """The URL at which it listens on the container network, without a path."""
    host: Input[str]
    """The host that runs it, for the error page."""
    enabled: bool = True
    """Whether it runs; if not, a page says so."""


class HttpProxy(ComponentResource):
    """An HTTP proxy, websockets included, from a host's address to the notebooks."""

    url: str
    """Where it will answer."""
    authority: Input[str]
    """The certificate, PEM, that vouches for it; empty with HTTP."""
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
        notebooks: Sequence[Route],
        authority: CertificateAuthority,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the proxy.

        Args:
            name: The component's name, and part of its container's.
            config: Its section.
            host: The host that the section names.
            notebooks: The notebooks, with different paths.
            authority: Issues its certificate with `https: lab`.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:HttpProxy", name, None, opts)
        token = Token(f"{name}-api-token", opts=ResourceOptions(parent=self))
        folders = [ServiceFolder("routes", ROUTES, [_routes(config, notebooks)])]
        self.authority = ""
        if config.https == "lab":
            own_names = [host.address, host.name, *([config.name] if config.name else [])]
            issued = Certificate(
                f"{name}-certificate",
                authority,
                config.name or host.address,
                names=own_names,
                usages=["server"],
                opts=ResourceOptions(parent=self),
            )
            self.authority = authority.certificate
            folders.append(_tls(issued.private_key, issued.certificate))
        elif config.certificate and config.key and config.https == "own":
            self.authority = config.certificate.read_text()
            folders.append(_tls(Output.secret(config.key.read_text()), self.authority))
        self.service = Service(
            name,
            config,
            host,
            image="proxy",
            parent=self,
            user=USER,
            files=[ServiceFile("api-token", token.value)],
            folders=folders,
            environment={
                "PROXY_ADDRESS": host.address,
                "PROXY_PORT": str(config.port),
                "PROXY_API_PORT": str(config.api_port),
                "PROXY_HTTPS": config.https,
                **({} if config.https == "none" else {"PROXY_HTTP_PORT": str(config.http_port)}),
                **({"PROXY_METRICS_PORT": str(config.metrics_port)} if config.metrics_port else {}),
            },
            read_only=True,
        )
        self.url = f"{config.scheme}://{config.name or host.address}:{config.port}"
        self.api_token = token.value
        self.register_outputs({"url": self.url, "authority": self.authority, "apiToken": self.api_token})


def _tls(key: Input[str], certificate: Input[str]) -> ServiceFolder:
    # One file, because one file is replaced in one step.
    both = Output.concat(key, "\n", certificate)
    return ServiceFolder("tls", TLS, [ServiceFile("tls.pem", both)])


def _routes(config: ProxyConfig, notebooks: Sequence[Route]) -> ServiceFile:
    start_page = config.start_page
    if start_page is None:
        start_page = any(notebook.path != "/" for notebook in notebooks)
    # The SDK spends time on each output, and known text shows each line in a preview.
    known = [(route.target, route.host) for route in notebooks]
    text: Input[str]
    if all(isinstance(value, str) for pair in known for value in pair):
        text = render_routes(notebooks, [(str(target), str(host)) for target, host in known], start_page)
    else:
        text = Output.all(*[Output.all(target, host) for target, host in known]).apply(
            lambda pairs: render_routes(notebooks, pairs, start_page)
        )
    return ServiceFile("routes.json", text, secret=False)


def render_routes(notebooks: Sequence[Route], places: Sequence[Sequence[str]], start_page: bool) -> str:
    """Render routes.json: a line for each notebook, so that a preview shows the one that changes.

    Args:
        notebooks: The notebooks.
        places: The target and the host of each.
        start_page: Whether `/` is the start page.
    """
    lines = [
        json.dumps(
            {
                "name": route.name,
                "path": route.path,
                "target": target,
                "host": host,
                "enabled": route.enabled,
            }
        )
        for route, (target, host) in zip(notebooks, places, strict=True)
    ]
    rows = ",\n  ".join(lines)
    return f'{{"startPage": {json.dumps(start_page)}, "notebooks": [\n  {rows}\n]}}\n'
