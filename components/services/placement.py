"""Placement: stores the host of a service that has a volume, so that a preview can warn of a move.

Owes: before a service moves, the preview says what is deleted, and how to keep it.
"""

from collections.abc import Mapping
from typing import Any

from pulumi import ResourceOptions, dynamic

from components.shared.provider import StoringProvider, is_known, tell


def effects(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what a change of the host does to a service's saved files, a sentence each."""
    before, after = olds.get("host"), news["host"]
    if before in (None, after):
        return []
    copy = f"docker cp {olds['container']}:{olds['folder']} -"
    return [
        f"{olds['container']} moves from {before} to {after}, and begins there with an empty "
        f"{news['folder']}. What is saved in {olds['folder']} on {before} is deleted; to keep it, first "
        f"run there: {copy} >saved.tar"
    ]


class _PlacementProvider(StoringProvider):
    compared = ("container", "host", "folder")

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        tell(effects(olds, news) if is_known(news) else [])
        return dynamic.CheckResult(dict(news), [])


class Placement(dynamic.Resource, module="calico-lab", name="Placement"):
    """The host and the folder of a service's saved files."""

    def __init__(
        self, name: str, container: str, host: str, folder: str, opts: ResourceOptions | None = None
    ) -> None:
        """Store the placement.

        Args:
            name: The resource's name.
            container: The name of the service's container.
            host: The host that it is on.
            folder: The folder of its saved files, in the container.
            opts: More resource options, usually the parent.
        """
        props = {"container": container, "host": host, "folder": folder}
        super().__init__(_PlacementProvider(), name, props, opts)
