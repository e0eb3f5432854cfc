"""NotebookContainer: the container of a notebook, on whichever host it is placed.

It is a resource of its own and not a `docker.Container`, because a program has to name the provider of such a
resource, and so its host, and the stack's state alone has the host that was chosen.

Owes: it is created and updated only when the notebook answers. A change of its limits does not restart it.
When it moves, the former container and its files are removed after it answers.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.hosts.files import digest
from components.hosts.remote import messages_without_traceback
from components.notebooks.step import (
    COPY_SECONDS,
    KEEP_DATA,
    NAMES,
    REMOVE,
    REMOVE_DATA,
    SCRIPTS,
    STEP_SECONDS,
    attempt,
    step,
)
from components.services.health import READY_SCRIPT
from components.shared.provider import differ, tell

if TYPE_CHECKING:
    from components.notebooks.config import Notebook

START, STOP, INSPECT = (SCRIPTS / f"{name}.sh" for name in ("start", "stop", "inspect"))
READY_SECONDS = 120
VARIABLES = (
    *("image", "network", "memory", "cpus", "pids", "service", "role", "url_path", "cull_seconds"),
    "repositories",
)
"""The inputs that start.sh has as variables."""
_COMPARED = (
    *NAMES,
    *VARIABLES,
    "lab",
    "address",
    "token",
    "password",
    "enabled",
    # The work is restored while the container is stopped.
    "restore",
    "location",
    # A removal goes by the stored command.
    "ssh",
    "host_container",
    "script",
)


def _text(value: object) -> str:
    # The engine has all numbers as floating point numbers.
    return f"{value:g}" if isinstance(value, float) else str(value)


def _place(props: Mapping[str, Any]) -> dict[str, Any]:
    """Run the container, or stop it; return the resource's properties."""
    if not props["enabled"]:
        step(props, STOP)
        return {**props, "given_address": props.get("address") or ""}
    variables = {
        **{name.upper(): _text(props[name]) for name in VARIABLES},
        "ADDRESS": props.get("address") or "",
        "BACKED_UP": "yes" if props.get("backed_up") else "",
        "LAB": json.dumps({"host": props["host"], **json.loads(props["lab"])}),
    }
    stdin = f"{props['token']}\n{props.get('password') or ''}\n"
    *said, address = step(props, START, variables, stdin=stdin).split("\n")
    tell(said)
    step(props, READY_SCRIPT, {"SECONDS_ALLOWED": str(READY_SECONDS)}, READY_SECONDS + STEP_SECONDS)
    return {**props, "given_address": address}


class _ContainerProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        with messages_without_traceback():
            return dynamic.CreateResult(props["container"], _place(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        # Docker removes a network only after its containers.
        replaced = ["network"] if differ(["network"], olds, news) else []
        return dynamic.DiffResult(
            changes=differ(_COMPARED, olds, news), replaces=replaced, delete_before_replace=True
        )

    def update(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        with messages_without_traceback():
            placed = _place(news)
        # Not by the ssh command: another port or user is a way to the same host.
        if olds["location"] != news["location"]:
            _leave(olds, with_work=news.get("left_behind") != olds["location"])
        return dynamic.UpdateResult(placed)

    def read(self, id_: str, props: Mapping[str, Any]) -> dynamic.ReadResult:
        """For `pulumi refresh`: a container that somebody removed is none."""
        there = attempt(props, INSPECT)
        removed = there.reached and there.status
        return dynamic.ReadResult("", {}) if removed else dynamic.ReadResult(id_, dict(props))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        with messages_without_traceback():
            step(props, REMOVE)


def _leave(olds: Mapping[str, Any], *, with_work: bool) -> None:
    """Remove what is on the former host. The notebook answers on its new host, so nothing fails any more.

    Work that was not copied from there is kept there: it may be newer than the backup that was restored.
    """
    for script in (REMOVE, REMOVE_DATA if with_work else KEEP_DATA):
        answer = attempt(olds, script, seconds=COPY_SECONDS if script == KEEP_DATA else STEP_SECONDS)
        if answer.status:
            container, volume = olds["container"], olds["volume"]
            then = (
                f"To remove it, run there: docker rm -f {container}; docker volume rm {volume}"
                if with_work
                else "Its work was not copied, and may be newer. When the host is back, run there: docker rm "
                f"-f {container}; then copy the files of the volume {volume}, and remove it, because it is "
                "backed up as the work of the notebook"
            )
            tell([f"{olds['host']}: the former {container} is still there ({answer.error}). {then}"])
            return
        if kept := answer.text.strip() if script == KEEP_DATA else "":
            tell(
                [
                    f"{olds['host']}: the former work of {olds['container']} is kept there, in {kept}: it "
                    "was not copied, because the host did not answer"
                ]
            )


class NotebookContainer(dynamic.Resource, module="calico-lab", name="NotebookContainer"):
    """The container of one notebook."""

    given_address: Output[str]
    """Its address on the container network; empty while it is off and has no fixed one."""

    def __init__(
        self,
        name: str,
        common: Mapping[str, Input[Any]],
        notebook: "Notebook",
        *,
        role: str,
        host_container: Input[str],
        image: Input[str],
        network: Input[str],
        token: Input[str],
        left_behind: Input[str],
        backed_up: bool,
        cull_seconds: int,
        repositories: str,
        lab: Mapping[str, Any],
        opts: ResourceOptions,
    ) -> None:
        """Run a notebook.

        Args:
            name: The resource's name.
            common: What both resources of a notebook have (`component.py`).
            notebook: The notebook.
            role: Its role in network policies; empty for none.
            host_container: The ID of its host's container; empty for an existing host.
            image: The image's ID on that host.
            network: The Docker network's name on that host.
            token: The token that opens it.
            left_behind: The location whose copy of the work stays when the notebook leaves it.
            backed_up: Whether the lab has backups.
            cull_seconds: The seconds after which an idle kernel is stopped.
            repositories: URLs of Git repositories, separated by blanks.
            lab: What the first notebook shows of the lab.
            opts: More resource options.
        """
        props = {
            **common,
            "host_container": host_container,
            "image": image,
            "network": network,
            "address": notebook.address,
            "memory": notebook.memory,
            "cpus": notebook.cpus,
            "pids": notebook.pids,
            "enabled": notebook.enabled,
            "service": notebook.service,
            "role": role,
            "url_path": notebook.path,
            "cull_seconds": cull_seconds,
            "repositories": repositories,
            "lab": json.dumps(lab),
            "token": token,
            "left_behind": left_behind,
            "backed_up": backed_up,
            "password": notebook.password,
            "script": digest([START.read_text()]),
            "given_address": None,
        }
        secret = ResourceOptions(additional_secret_outputs=["token", "password"])
        super().__init__(_ContainerProvider(), name, props, ResourceOptions.merge(opts, secret))
