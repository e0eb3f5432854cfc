"""BoxAccess: the SSH files with which `ssh -F <config> <box>` reaches each SSH box from the controller.

The boxes have no address outside the container network, so ssh(1) goes by the host of the box. These files
are in a folder of their own, because those of the hosts (`components.hosts.ssh`) exist before any box. The
hosts' ssh_config(5) includes that of the boxes.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import Output, ResourceOptions, dynamic

from components.hosts.remote import PROJECT
from components.hosts.ssh import access_folder, are_written, boxes_config, write_files
from components.shared.provider import differ

if TYPE_CHECKING:
    from components.services.ssh_box import SshBox

USER = "admin"
"""The user of every box."""
_COMPARED = ("folder", "boxes", "keys")


def render_box(folder: Path, box: Mapping[str, str]) -> str:
    """Render the ssh_config(5) of a box."""
    return (
        f"Host {box['alias']}\n"
        f"  HostName {box['address']}\n"
        f"  HostKeyAlias {box['alias']}\n"
        f"  User {USER}\n"
        f"  ProxyJump {box['host']}\n"
        f'  IdentityFile "{folder}/{box["alias"]}"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{folder}/known_hosts"\n'
    )


def _files(props: Mapping[str, Any]) -> dict[Path, str]:
    config = boxes_config(PROJECT / props["folder"])
    folder, boxes = config.parent, props["boxes"]
    keys = dict(zip([box["alias"] for box in boxes], props["keys"], strict=True))
    return {
        **{folder / alias: key for alias, key in keys.items()},
        folder / "known_hosts": "".join(f"{box['alias']} {box['host_key']}\n" for box in boxes),
        config: "\n".join(render_box(folder, box) for box in boxes),
    }


def _write(props: Mapping[str, Any]) -> dict[str, Any]:
    write_files(boxes_config(PROJECT / props["folder"]).parent, _files(props))
    return dict(props)


class _BoxAccessProvider(dynamic.ResourceProvider):
    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("box-access", _write(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        changed = differ(_COMPARED, olds, news)
        return dynamic.DiffResult(changes=changed or not are_written(_files(olds)))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(_write(news))

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        shutil.rmtree(boxes_config(PROJECT / props["folder"]).parent, ignore_errors=True)


class BoxAccess(dynamic.Resource, module="calico-lab", name="BoxAccess"):
    """The SSH files of all boxes."""

    output: Output[dict[str, dict[str, str]]]
    """The stack's output `sshBoxes`: address, host key and ssh command by box."""

    def __init__(self, name: str, boxes: Sequence["SshBox"], opts: ResourceOptions | None = None) -> None:
        """Write the files.

        Args:
            name: The resource's name.
            boxes: The boxes.
            opts: More resource options.
        """
        folder = access_folder()
        props = {
            "folder": folder,
            "boxes": [
                {"alias": box.name, "address": box.address, "host": box.host, "host_key": box.host_key}
                for box in boxes
            ],
            "keys": Output.all(*[box.private_key for box in boxes]),
        }
        secret = ResourceOptions(additional_secret_outputs=["keys"])
        super().__init__(_BoxAccessProvider(), name, props, ResourceOptions.merge(opts, secret))
        written = self.id.apply(lambda _: f"ssh -F {folder}/config ")
        self.output = Output.all(
            **{
                box.name: Output.all(
                    address=box.address,
                    hostKey=box.host_key,
                    command=Output.concat(written, box.name),
                )
                for box in boxes
            }
        )
