"""SshBox: an SSH server in a container on the lab's network, for the user `admin` and by key alone.

Owes: its host key is known before the first connection; both keys are made for the lab, and the private ones
are secrets.
"""

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.hosts.host import Host
from components.services.config import SshBoxConfig
from components.services.service import Service, ServiceFile, ServiceVolume
from components.shared.secrets import SshKey

ROOT = 0
CAPABILITIES = (
    # sshd(8) becomes the user, in a root of its own before that, and tells the audit log.
    *("SETUID", "SETGID", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    # The terminal becomes the user's.
    "CHOWN",
    # ping(8) has it from its file.
    "NET_RAW",
)


class SshBox(ComponentResource):
    """An SSH server on the container network."""

    name: str
    """Its name, also for ssh(1)."""
    host: str
    """The name of its host."""
    address: Output[str]
    """Where it listens on the container network."""
    service: Service
    """Its container."""
    private_key: Output[str]
    """The key of its user `admin`, OpenSSH PEM (secret)."""
    host_key: Output[str]
    """Its public host key: `ssh-ed25519 AAAA...`."""

    def __init__(
        self,
        name: str,
        config: SshBoxConfig,
        host: Host,
        *,
        network: Input[str],
        policy_name: str,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the SSH server.

        Args:
            name: The component's name, and part of its container's.
            config: Its section.
            host: The host that the section names.
            network: The Docker network's name on that host.
            policy_name: Its name in network policies.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:SshBox", name, None, opts)
        self.name, self.host = name, host.name
        host_key = SshKey(f"{name}-host-key", opts=ResourceOptions(parent=self))
        user_key = SshKey(f"{name}-admin-key", opts=ResourceOptions(parent=self))
        self.service = Service(
            name,
            config,
            host,
            image="sshbox",
            parent=self,
            user=ROOT,
            files=[
                ServiceFile("host_key", host_key.private_key),
                # sshd reads it as the user.
                ServiceFile("authorized_keys", user_key.public_key, secret=False),
            ],
            volume=ServiceVolume("home", "/home/admin"),
            capabilities=CAPABILITIES,
            network=network,
            address=config.address,
            policy_name=policy_name,
        )
        self.address = Output.from_input(str(config.address)) if config.address else self.service.address
        self.private_key = user_key.private_key
        self.host_key = host_key.public_key
        self.register_outputs(
            {"address": self.address, "privateKey": self.private_key, "hostKey": self.host_key}
        )
