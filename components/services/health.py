"""Waits until containers pass the health checks of their images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi import ResourceOptions

from components.readiness.gate import Gate

if TYPE_CHECKING:
    from components.services.service import Service

READY_SCRIPT = Path(__file__).with_name("scripts") / "ready.sh"
"""Waits until a container passes the health check of its image."""
SECONDS_ALLOWED = 60


def services_ready(name: str, services: Sequence["Service"], opts: ResourceOptions | None = None) -> Gate:
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
        # The ID of a container, with its address.
        triggers=[container.made for container in containers],
        opts=ResourceOptions.merge(ResourceOptions(depends_on=containers), opts),
    )
