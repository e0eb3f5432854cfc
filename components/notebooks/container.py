"""NotebookContainer: the container of a notebook, on whichever host it is placed.

It is a resource of its own and not a `docker.Container`, because a program has to name the provider of such a
resource, and so its host, and the stack's state alone has the host that was chosen.

Owes: it is created and updated only when the notebook answers. A change of its limits does not restart it.
When it moves, the former container and its files are removed after it answers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.hosts.files import digest
from components.hosts.remote import HostError, messages_without_traceback, run
from components.notebooks.config import Notebook
from components.services.service import READY_SCRIPT
from components.shared.provider import differ, tell

_SCRIPTS = Path(__file__).with_name("scripts")
START_SECONDS = 120
READY_SECONDS = 120
"""Thirty notebooks may start at once, on two slow processors."""
VARIABLES = (
    *("container", "notebook", "stack", "host", "image", "network", "memory", "cpus", "pids", "service"),
    *("role", "url_path", "cull_seconds", "repositories"),
)
_COMPARED = (
    *VARIABLES,
    "lab",
    "address",
    "token",
    "password",
    "enabled",
    # The work is restored while the container is stopped.
    "restore",
    "location",
    "host_container",
    "script",
)


def _variables(props: Mapping[str, Any]) -> dict[str, str]:
    # The engine has all numbers as floating point numbers.
    texts = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in props.items()}
    own = {name.upper(): texts[name] for name in VARIABLES}
    return {
        **own,
        "ADDRESS": props.get("address") or "",
        "VOLUME": f"{props['container']}-work",
        "LAB": json.dumps({"host": props["host"], **json.loads(props["lab"])}),
    }


def _run(props: Mapping[str, Any], script: Path, seconds: float, stdin: str = "") -> str:
    variables = {**_variables(props), "SECONDS_ALLOWED": str(READY_SECONDS)}
    answer = run(props["ssh"], script.read_text(), variables, seconds, stdin=stdin)
    if answer.status:
        step = f"{props['host']}: {script.stem} of {props['container']} failed"
        raise HostError(f"{step}: {answer.error}; then run 'pulumi up' again")
    return answer.text.strip()


def _place(props: Mapping[str, Any]) -> dict[str, Any]:
    """Run the container, or stop it; return the resource's properties."""
    if not props["enabled"]:
        _run(props, _SCRIPTS / "stop.sh", START_SECONDS)
        return {**props, "given_address": props.get("address") or ""}
    _run(props, _SCRIPTS / "create-data.sh", START_SECONDS)
    secrets = f"{props['token']}\n{props.get('password') or ''}\n"
    address = _run(props, _SCRIPTS / "start.sh", START_SECONDS, secrets)
    _run(props, READY_SCRIPT, READY_SECONDS + START_SECONDS)
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
            _leave(olds)
        return dynamic.UpdateResult(placed)

    def read(self, id_: str, props: Mapping[str, Any]) -> dynamic.ReadResult:
        """For `pulumi refresh`: a container that somebody removed is none."""
        there = run(props["ssh"], 'docker container inspect "$CONTAINER"', _variables(props), START_SECONDS)
        removed = there.reached and there.status
        return dynamic.ReadResult("", {}) if removed else dynamic.ReadResult(id_, dict(props))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        with messages_without_traceback():
            _run(props, _SCRIPTS / "remove.sh", START_SECONDS)


def _leave(olds: Mapping[str, Any]) -> None:
    """Remove what is on the former host. The notebook answers on its new host, so nothing fails any more."""
    variables = _variables(olds)
    for script in ("remove.sh", "remove-data.sh"):
        answer = run(olds["ssh"], (_SCRIPTS / script).read_text(), variables, START_SECONDS)
        if answer.status:
            container = olds["container"]
            tell(
                [
                    f"{olds['host']}: the former copy of {container} is still there ({answer.error}). To "
                    f"remove it, run there: docker rm -f {container}; docker volume rm {container}-work"
                ]
            )
            return


class NotebookContainer(dynamic.Resource, module="calico-lab", name="NotebookContainer"):
    """The container of one notebook."""

    given_address: Output[str]
    """Its address on the container network; empty while it is off and has no fixed one."""

    def __init__(
        self,
        name: str,
        notebook: Notebook,
        *,
        stack: str,
        host: Mapping[str, Input[str]],
        image: Input[str],
        network: Input[str],
        token: Input[str],
        cull_seconds: int,
        repositories: str,
        lab: Mapping[str, Any],
        opts: ResourceOptions,
    ) -> None:
        """Run a notebook.

        Args:
            name: The resource's name.
            notebook: The notebook.
            stack: The stack's name, a label of the container.
            host: `host`, `location`, `ssh` and `host_container`: the name of its host, where its volume is,
                the ssh command, and the ID of a host container.
            image: The image's ID on that host.
            network: The Docker network's name on that host.
            token: The token that opens it.
            cull_seconds: The seconds after which an idle kernel is stopped.
            repositories: URLs of Git repositories, separated by blanks.
            lab: What the first notebook shows of the lab.
            opts: More resource options.
        """
        props = {
            **host,
            "container": notebook.container,
            "notebook": notebook.name,
            "stack": stack,
            "image": image,
            "network": network,
            "address": notebook.address,
            "memory": notebook.memory,
            "cpus": notebook.cpus,
            "pids": notebook.pids,
            "enabled": notebook.enabled,
            "restore": notebook.restore,
            "service": notebook.service,
            "role": "student" if notebook.student else "",
            "url_path": notebook.path,
            "cull_seconds": cull_seconds,
            "repositories": repositories,
            "lab": json.dumps(lab),
            "token": token,
            "password": notebook.password,
            "script": digest([(_SCRIPTS / "start.sh").read_text()]),
            "given_address": None,
        }
        secret = ResourceOptions(additional_secret_outputs=["token", "password"])
        super().__init__(_ContainerProvider(), name, props, ResourceOptions.merge(opts, secret))
