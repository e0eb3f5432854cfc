"""The host of a service that keeps something, remembered so that a move of it is told.

Owes: a preview says what becomes of what the service has saved, and how to keep it, before anything is moved.
"""

from collections.abc import Mapping
from typing import Any

from pulumi import ResourceOptions, dynamic

from components.shared.provider import differ, is_known, tell

PLACED = ("container", "host", "folder")


def consequences(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what a change of the host does to what a service has saved, a sentence each."""
    before, after = olds.get("host"), news["host"]
    if before in (None, after):
        return []
    copy = f"docker cp {olds['container']}:{olds['folder']} -"
    return [
        f"{olds['container']} moves from {before} to {after}, and begins there with an empty "
        f"{news['folder']}. What is saved in {olds['folder']} on {before} is deleted; to keep it, first "
        f"run there: {copy} >saved.tar"
    ]


class _PlaceProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        tell(consequences(olds, news) if is_known(news) else [])
        return dynamic.CheckResult(dict(news), [])

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult(f"{props['container']}-place", dict(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(PLACED, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(dict(news))


class Place(dynamic.Resource, module="calico-lab", name="Place"):
    """Where a service keeps what it saves."""

    def __init__(
        self, name: str, container: str, host: str, folder: str, opts: ResourceOptions | None = None
    ) -> None:
        """Remember the place.

        Args:
            name: The resource's name.
            container: The name of the service's container.
            host: The host that it is on.
            folder: The folder, in the container, of what it saves.
            opts: More resource options, usually the parent.
        """
        props = {"container": container, "host": host, "folder": folder}
        super().__init__(_PlaceProvider(), name, props, opts)
