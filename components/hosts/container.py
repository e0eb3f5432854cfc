"""Host containers: systemd containers on the controller's Docker engine, and their network."""

import base64
import hashlib
import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.shared.build_context import context_digest
from components.shared.secrets import SshKey

CONTEXT = Path("images/host")
"""Build context of their image, from the project's folder."""
BRIDGE = "br-calico-lab"
"""The bridge interface of their network on the controller."""

# Not privileged, because some controllers lack CAP_SYS_RESOURCE. Left out are the capabilities that reach the
# controller's kernel directly: modules, raw I/O, clock, boot, audit, MAC policy, files by their handle.
# SYS_ADMIN has to stay, because systemd and the nested engine mount with it, and Felix loads BPF programs.
# With it, root can mount /proc again without Docker's masks: docs/hosts.md describes the boundary.
CAPABILITIES = [
    *("AUDIT_READ", "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
    *("IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID"),
    *("SYSLOG", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_TTY_CONFIG"),
]
# The device rules that runc gives every container, because a nested runc cannot give more than it has: make
# any device node, open /dev/net/tun. Docker itself adds terminals, null, zero and random. No disk, no memory.
DEVICE_RULES = ["c *:* m", "b *:* m", "c 10:200 rwm"]


def interface_in(network: IPv4Network, routes: str) -> str | None:
    """Find an interface, other than the lab's own bridge, with a route into a network.

    Args:
        network: The network wanted for the hosts.
        routes: The text of `/proc/net/route`: interface, destination and mask, little-endian hex (proc(5)).

    Returns:
        `<interface> (<network>)`, or None if the network is free. Default routes do not count.
    """
    for line in routes.splitlines()[1:]:
        interface, destination, *_, mask = line.split()[:8]
        route = IPv4Network(
            (
                int.from_bytes(bytes.fromhex(destination), "little"),
                int.from_bytes(bytes.fromhex(mask), "little").bit_count(),
            )
        )
        if interface != BRIDGE and route.prefixlen > 0 and route.overlaps(network):
            return f"{interface} ({route})"
    return None


def fingerprint(public_key: str) -> str:
    """The SHA-256 fingerprint of an OpenSSH public key, as `ssh-keygen -l` prints it, without `SHA256:`."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return base64.b64encode(digest).decode().rstrip("=")


def replacement_digest(network: IPv4Network, release: str, address: str, mac: str | None) -> str:
    """Hash of all inputs that replace a host container. Unlike the container's ID, it is known at preview."""
    described = [str(network), release, address, mac, context_digest(CONTEXT)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def security_options() -> list[str]:
    """Docker's security options of a host container; Docker's API takes the seccomp profile as text."""
    # Docker's default profile stops mounts and namespaces, which systemd and a nested engine need. The lab's
    # profile stops the system calls with which root gets around the masks.
    profile = json.loads((CONTEXT / "seccomp.json").read_text())
    return [f"seccomp={json.dumps(profile, sort_keys=True)}", "apparmor=unconfined"]


class HostNetwork:
    """The bridge network, image and labels that all host containers share.

    The labels name the lab that an object on the engine belongs to: the stack's name, and the fingerprint of
    the operator's key. With them, `workspace.leftovers` finds what an interrupted run left behind.
    """

    def __init__(self, network: IPv4Network, release: str, operator: SshKey, opts: ResourceOptions) -> None:
        self.addresses, self.release = network, release
        self.labels = {
            "calico-lab.stack": Output.from_input(pulumi.get_stack()),
            "calico-lab.operator": operator.public_key.apply(fingerprint),
        }
        self.image = docker.RemoteImage(
            "host-image",
            name="calico-lab/host:latest",
            build=docker.RemoteImageBuildArgs(
                context=str(CONTEXT),
                build_args={"BASE": f"calico-lab/debian:{release}"},
                # The provider's other builder needs a buildx that Debian does not package.
                use_legacy_builder=True,
            ),
            triggers={"context": context_digest(CONTEXT)},
            keep_locally=True,
            opts=opts,
        )
        self.network = docker.Network(
            "network",
            name="calico-lab",
            driver="bridge",
            ipam_configs=[
                docker.NetworkIpamConfigArgs(subnet=str(network), gateway=str(network.network_address + 1))
            ],
            options={"com.docker.network.bridge.name": BRIDGE},
            labels=[docker.NetworkLabelArgs(label=key, value=value) for key, value in self.labels.items()],
            opts=opts,
        )


class HostContainer:
    """One host container: it boots systemd, sshd and Docker like a small VM."""

    resource: docker.Container
    network: docker.Network
    replacement_digest: str
    """See `replacement_digest`."""

    def __init__(
        self,
        name: str,
        *,
        network: HostNetwork,
        address: str,
        mac: str | None,
        host_key: Output[str],
        operator: SshKey,
        docker_engine: bool,
        opts: ResourceOptions,
    ) -> None:
        self.network = network.network
        self.replacement_digest = replacement_digest(network.addresses, network.release, address, mac)
        labels = network.labels.items()
        # In a container systemd reads its arguments as a kernel command line (kernel-command-line(7)).
        masked = [] if docker_engine else ["docker.service", "docker.socket", "containerd.service"]
        self.resource = docker.Container(
            f"{name}-container",
            name=f"calico-lab-{name}",
            hostname=name,
            image=network.image.image_id,
            command=[f"systemd.mask={unit}" for unit in masked],
            capabilities=docker.ContainerCapabilitiesArgs(adds=[f"CAP_{cap}" for cap in CAPABILITIES]),
            security_opts=security_options(),
            device_cgroup_rules=DEVICE_RULES,
            # The controller does not see the hosts' control groups, and none stay behind.
            cgroupns_mode="private",
            tmpfs={"/run": "exec,mode=755", "/tmp": "exec,mode=1777"},  # noqa: S108 - the container's own
            volumes=[self._docker_data(name, network.labels, opts)] if docker_engine else None,
            networks_advanced=[
                docker.ContainerNetworksAdvancedArgs(
                    name=network.network.name, ipv4_address=address, mac_address=mac
                )
            ],
            uploads=[
                docker.ContainerUploadArgs(
                    file="/etc/ssh/ssh_host_ed25519_key", content=host_key, permissions="0600"
                ),
                docker.ContainerUploadArgs(
                    file="/root/.ssh/authorized_keys", content=operator.public_key, permissions="0600"
                ),
            ],
            labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in labels],
            restart="unless-stopped",
            stop_signal="SIGRTMIN+3",
            destroy_grace_seconds=0,
            opts=ResourceOptions.merge(opts, ResourceOptions(delete_before_replace=True)),
        )

    @staticmethod
    def _docker_data(
        name: str, labels: Mapping[str, Input[str]], opts: ResourceOptions
    ) -> docker.ContainerVolumeArgs:
        """The volume with the data of the host's engine, which outlives the container."""
        volume = docker.Volume(
            f"{name}-docker-data",
            name=f"calico-lab-{name}-docker",
            labels=[docker.VolumeLabelArgs(label=key, value=value) for key, value in labels.items()],
            opts=opts,
        )
        # overlayfs cannot lie on overlayfs: nested Docker needs a real file system under its data.
        return docker.ContainerVolumeArgs(container_path="/var/lib/docker", volume_name=volume.name)
