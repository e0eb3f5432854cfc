"""A machine made as a systemd container on the controller's Docker, and the network of such machines."""

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
"""What the machines' image is built from, seen from the project's folder."""
BRIDGE = "br-calico-lab"
"""The bridge interface of the machines' network on the controller."""

# Not privileged, because some controllers do not have SYS_RESOURCE to give. What reaches into its kernel by
# itself is left out: modules, raw I/O, clock, boot, audit, MAC policy, files by their handle.
# SYS_ADMIN has to stay: systemd and the nested engine mount with it, and Felix loads BPF programs. Who has it
# can mount /proc a second time, without the covers: docs/hosts.md says what the boundary holds against.
CAPABILITIES = [
    *("AUDIT_READ", "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
    *("IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID"),
    *("SYSLOG", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_TTY_CONFIG"),
]
# What runc allows every container, since a nested runc can give no more than there is: to make any node, and
# to open those of terminals, of nothing and of chance (which Docker allows itself), and of tunnels. To open a
# disk or the memory is not among them.
DEVICE_RULES = ["c *:* m", "b *:* m", "c 10:200 rwm"]


def interface_in(network: IPv4Network, routes: str) -> str | None:
    """Find an interface, other than the lab's own bridge, with a route into a network.

    Args:
        network: The network that the machines shall have.
        routes: The text of `/proc/net/route`: interface, destination and mask, little-endian hex (proc(5)).

    Returns:
        `<interface> (<network>)`, or None where the network is free. Default routes do not count.
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


def total_memory(meminfo: str) -> int:
    """The memory of a machine in MiB, from the text of its `/proc/meminfo` (proc_meminfo(5))."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines())
    return int(fields["MemTotal"].split()[0]) // 1024


def fingerprint(public_key: str) -> str:
    """The SHA-256 fingerprint of an OpenSSH public key, as `ssh-keygen -l` prints it, without `SHA256:`."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return base64.b64encode(digest).decode().rstrip("=")


def plan(network: IPv4Network, release: str, address: str, mac: str | None) -> str:
    """A digest of what the config and the image's folder say of a machine: another one makes it anew.

    Unlike the machine's id it is known before anything is done.
    """
    described = [str(network), release, address, mac, context_digest(CONTEXT)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def security_options() -> list[str]:
    """Docker's security options of a machine, its system call filter in full, as Docker's API takes it."""
    # systemd mounts and nested Docker makes namespaces: calls that the default filters stop. The lab's own
    # filter stops those by which root reaches past its mounts.
    profile = json.loads((CONTEXT / "seccomp.json").read_text())
    return [f"seccomp={json.dumps(profile, sort_keys=True)}", "apparmor=unconfined"]


class MachineNetwork:
    """The bridge network and the image that all machines share, and the labels by which they are known.

    The labels tell whose lab a thing on the engine is: the stack's name, and the fingerprint of the key that
    opens the machines. `workspace.leftovers` finds by them what an interrupted run left behind.
    """

    def __init__(self, network: IPv4Network, release: str, operator: SshKey, opts: ResourceOptions) -> None:
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


class Machine:
    """One container that boots systemd, sshd and Docker like a small VM."""

    def __init__(
        self,
        name: str,
        *,
        network: MachineNetwork,
        address: str,
        mac: str | None,
        host_key: SshKey,
        operator: SshKey,
        docker_engine: bool,
        opts: ResourceOptions,
    ) -> None:
        labels = network.labels.items()
        # systemd reads its own arguments as a kernel command line in a container (proc_cmdline in systemd).
        masked = [] if docker_engine else ["docker.service", "docker.socket", "containerd.service"]
        self.container = docker.Container(
            f"{name}-machine",
            name=f"calico-lab-{name}",
            hostname=name,
            image=network.image.image_id,
            command=[f"systemd.mask={unit}" for unit in masked],
            capabilities=docker.ContainerCapabilitiesArgs(adds=[f"CAP_{cap}" for cap in CAPABILITIES]),
            security_opts=security_options(),
            device_cgroup_rules=DEVICE_RULES,
            # Nothing of the machines' control groups shows on the controller, or stays behind there.
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
                    file="/etc/ssh/ssh_host_ed25519_key", content=host_key.private_key, permissions="0600"
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
