"""DockerObject: a network, a volume or a container on the Docker engine of a host, made by a script over SSH.

It is not a resource of Pulumi's Docker provider. That is a process for each host in each preview, and waits a
minute for the engine of a host that is gone.

Owes: `pulumi refresh` notices one that is gone, and a container that does not run; the next `up` makes it
again. The deletion of one that is gone is no error. A change of what it is made of replaces it, and does not
update it: if the new one cannot be made, the state has none, and the next `up` makes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pulumi
from pulumi import Input, Output, ResourceOptions, dynamic

from components.hosts.remote import Answer, HostError, messages_without_traceback, run
from components.shared.provider import differ

if TYPE_CHECKING:
    from components.hosts.host import Host

Kind = Literal["network", "volume", "container"]
STEP_SECONDS = 120
"""Time limit of one script, on two slow processors that start the whole lab."""
REPLACING = ("kind", "docker_name", "variables", "location")
UPDATING = (
    *("script", "limits", "host_container"),
    # A removal goes by the stored command.
    "ssh",
)
_SCRIPTS = Path(__file__).with_name("scripts")
_LOOK, _REMOVE = (_SCRIPTS / f"{name}-docker-object.sh" for name in ("look-for", "remove"))


def _ask(props: Mapping[str, Any], script: str, variables: Mapping[str, Any]) -> Answer:
    return run(
        props["ssh"],
        script,
        {
            **{name: str(value) for name, value in variables.items()},
            **{"HOST": props["host"], "KIND": props["kind"], "NAME": props["docker_name"]},
        },
        STEP_SECONDS,
    )


def _done(props: Mapping[str, Any], what: str, answer: Answer) -> str:
    """What a script has printed.

    Raises:
        HostError: It has failed.
    """
    if answer.status:
        raise HostError(
            f"{props['host']}: the {props['kind']} {props['docker_name']} could not be {what}: "
            f"{answer.error or answer.text}; then run pulumi again"
        )
    return answer.text.strip()


def _make(props: Mapping[str, Any]) -> dict[str, Any]:
    """Run the script; return the resource's properties."""
    variables = {**props["variables"], **props["limits"]}
    made = _done(props, "made", _ask(props, props["script"], variables))
    return {**props, "made": made}


class DockerObjectProvider(dynamic.ResourceProvider):
    """Makes, looks for and removes an object of a host's engine."""

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        """Run the script."""
        with messages_without_traceback():
            try:
                return dynamic.CreateResult(props["docker_name"], _make(props))
            except HostError:
                # Docker keeps a container that it could not start, and Pulumi forgets the resource. A network
                # or a volume that is in the way may be somebody else's.
                if props["kind"] == "container":
                    _ask(props, _REMOVE.read_text(), {})
                raise

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        """Compare what the object is made of."""
        replaces = [key for key in REPLACING if differ([key], olds, news)]
        return dynamic.DiffResult(changes=bool(replaces) or differ(UPDATING, olds, news), replaces=replaces)

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        """Run the script again."""
        with messages_without_traceback():
            return dynamic.UpdateResult(_make(news))

    def read(self, id_: str, props: Mapping[str, Any]) -> dynamic.ReadResult:
        """Look for it; a host that does not answer has not lost it."""
        there = _ask(props, _LOOK.read_text(), {})
        gone = there.status == 0 and there.text.strip() == "gone"
        return dynamic.ReadResult("", {}) if gone else dynamic.ReadResult(id_, dict(props))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        """Remove it."""
        with messages_without_traceback():
            _done(props, "removed", _ask(props, _REMOVE.read_text(), {}))


class DockerObject(dynamic.Resource, module="calico-lab", name="DockerObject"):
    """An object of a host's engine."""

    docker_name: Output[str]
    """Its name, known when it is there."""
    made: Output[str]
    """What the script has printed."""

    def __init__(
        self,
        name: str,
        host: "Host",
        kind: Kind,
        docker_name: str,
        script: Path,
        *,
        variables: Mapping[str, Input[object]] | None = None,
        limits: Mapping[str, str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Make the object.

        Args:
            name: The resource's name.
            host: The host.
            kind: What it is.
            docker_name: What Docker calls it.
            script: An idempotent bash script; it gets `HOST`, `NAME` and `STACK`, and keeps an object that is
                as described.
            variables: Exported to the script; never secret. A change replaces the object, as does a move to
                another host, and the replacement of a resource that one of them comes from.
            limits: More variables, whose change runs the script again.
            opts: More resource options, usually the parent.
        """
        props = {
            "kind": kind,
            "docker_name": docker_name,
            "host": host.name,
            "ssh": host.ssh,
            "host_container": host.container.id if host.container else "",
            "script": script.read_text(),
            "variables": {"STACK": pulumi.get_stack(), **(variables or {})},
            "limits": dict(limits or {}),
            "location": host.location,
            "made": None,
        }
        super().__init__(DockerObjectProvider(), name, props, host.options(opts))
