"""The `hosts` section of the config: host containers, or existing hosts."""

import os
import subprocess
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.shared.section import (
    Address,
    ExpandedPath,
    HostName,
    MacAddress,
    Network,
    Port,
    Section,
    listed,
    problem_at,
)

RESERVED = {
    "all": "every host, in firewall policies",
    "localhost": "the host itself (RFC 6761, section 6.3)",
    "network-policy": "network policies, in the names of resources",
    "notebook": "the notebook",
    "operator": "the operator",
    "proxy": "the proxy's host, in network policies",
    "sshbox": "the SSH box",
    "visitor": "the visitor",
}
"""Names with another meaning in rules, in `lab` or in resource names."""


def _free_name(value: str) -> str:
    if value in RESERVED:
        raise ValueError(f"is kept for {RESERVED[value]}; must be another name than {listed([*RESERVED])}")
    return value


MemberName = Annotated[HostName, AfterValidator(_free_name)]


class DockerMember(Section):
    """A host container."""

    address: Address = Field(description="Its fixed address, inside `network`.")
    mac: MacAddress | None = Field(None, description="Its fixed MAC address, for rules by source MAC.")


def _check_macs(by_path: Mapping[str, str | None]) -> None:
    """Refuse a MAC address that two hosts have; `by_path` has the addresses by their path in the section."""
    seen: dict[str, str] = {}
    for where, mac in by_path.items():
        if mac in seen:
            raise problem_at(
                f"{where}.mac", mac, f"is taken already by {seen[mac]}; must be an address of its own"
            )
        if mac:
            seen[mac] = where


class DockerHosts(Section):
    """Hosts as systemd containers on the controller's Docker engine."""

    provider: Literal["docker"] = Field(description="`docker`: create the hosts as containers.")
    release: Literal["bookworm", "trixie"] = Field(
        "trixie", description="The release of Debian that they run, and with it the Docker engine: 12 or 13."
    )
    network: Network = Field(
        description="The network of the hosts; free on the controller, and private: RFC 1918, 6598, 2544 "
        "or 5737."
    )
    members: dict[MemberName, DockerMember] = Field(min_length=1, description="The hosts of the lab by name.")
    visitor: DockerMember | None = Field(None, description="A plain host to try firewall policies from.")

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        network = self.network
        first, last = network.network_address + 2, network.broadcast_address - 1
        hosts = self._hosts()
        if last < first or int(last) - int(first) + 1 < len(hosts):
            raise problem_at(
                "network",
                network,
                f"is too small for {len(hosts)} host(s); must have room for them, its gateway and its own "
                "two addresses",
            )
        addresses: dict[IPv4Address, str] = {}
        for where, host in hosts.items():
            address = host.address
            if not first <= address <= last:
                raise problem_at(
                    f"{where}.address",
                    address,
                    f"is not a host address of network {network}; must be from {first} to {last}, after the "
                    "gateway's",
                )
            if address in addresses:
                raise problem_at(
                    f"{where}.address",
                    address,
                    f"is taken already by {addresses[address]}; must be an address of its own",
                )
            addresses[address] = where
        return self

    @model_validator(mode="after")
    def _macs_differ(self) -> Self:
        _check_macs({where: host.mac for where, host in self._hosts().items()})
        return self

    def _hosts(self) -> dict[str, DockerMember]:
        """Every host by its path in the section."""
        members = {f"members.{name}": member for name, member in self.members.items()}
        return {**members, **({"visitor": self.visitor} if self.visitor else {})}


class ExistingMember(Section):
    """An existing host: Debian 12+ or Ubuntu 22.04+ that answers SSH."""

    address: Address = Field(description="The address for SSH, at which the other hosts reach it too.")
    port: Port = Field(22, description="The port of SSH.")
    mac: MacAddress | None = Field(
        None, description="The MAC address that the other hosts see, for rules by source MAC."
    )
    user: str = Field(
        "root", pattern=r"^[a-z_][a-z0-9_-]*$", description="root, or a sudoer without password."
    )
    lost: bool = Field(
        False,
        description="The host is gone for good, so nothing is removed there. Set it and run `pulumi up` "
        "before you remove the member, change its address, or destroy the lab.",
    )
    host_key: str | None = Field(
        None,
        pattern=r"^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/=]+$",
        description="Its public host key, `ssh-ed25519 AAAA...`; without it, the key in `knownHosts`.",
    )


def unusable_key(path: Path) -> str | None:
    """Say why a private key cannot be used without a question to the operator; None if it can."""
    try:
        found = path.is_file()
    except OSError:
        # is_file() raises if a name is too long.
        found = False
    if not found:
        return (
            "is not a file; must be the path of an SSH private key, seen from the project's folder, or left "
            "out for the keys of your ssh-agent"
        )
    # ssh-keygen refuses a key that is encrypted or that others may read, as ssh does.
    read = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(path)], capture_output=True, text=True, check=False
    )
    if read.returncode == 0:
        return None
    if "passphrase" in read.stderr:
        return f"has a passphrase; 'ssh-add {path}', and leave privateKey out"
    if "too open" in read.stderr:
        return f"may be read by others, which ssh refuses; 'chmod 600 {path}'"
    return f"cannot be used ({read.stderr.strip()}); must be the path of an SSH private key"


def unusable_agent() -> str | None:
    """Say why the ssh-agent has no key to offer; None if it has one."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        cause = "there is no ssh-agent (SSH_AUTH_SOCK is not set); 'eval $(ssh-agent)', then 'ssh-add'"
    else:
        asked = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return None
        # ssh-add(1): 1 if the agent has no key, 2 if it cannot be reached.
        cause = "the ssh-agent has no key; 'ssh-add'"
        if asked.returncode != 1:
            cause = (
                f"the ssh-agent does not answer ({asked.stderr.strip()}); 'eval $(ssh-agent)', then 'ssh-add'"
            )
    return f"{cause}. Or give the path of an SSH private key"


class ExistingHosts(Section):
    """Hosts that the operator has."""

    provider: Literal["existing"] = Field(description="`existing`: take hosts that the operator has.")
    members: dict[MemberName, ExistingMember] = Field(
        min_length=1, description="The hosts of the lab by name."
    )
    private_key: ExpandedPath | None = Field(
        None,
        description="Path of the SSH private key, without passphrase. Left out: the keys of your ssh-agent.",
    )
    known_hosts: ExpandedPath = Field(
        Path("~/.ssh/known_hosts"), description="The file with the host keys that `hostKey` does not give."
    )

    @model_validator(mode="after")
    def _addresses_differ(self) -> Self:
        seen: dict[IPv4Address, str] = {}
        for name, member in self.members.items():
            if member.address in seen:
                raise problem_at(
                    f"members.{name}.address",
                    member.address,
                    f"is taken already by members.{seen[member.address]}; must be an address of its own",
                )
            seen[member.address] = name
        return self

    @property
    def identity(self) -> Path | None:
        """The absolute path of the private key; None if the ssh-agent has it."""
        return self.private_key.absolute() if self.private_key else None

    @model_validator(mode="after")
    def _macs_differ(self) -> Self:
        _check_macs({f"members.{name}": member.mac for name, member in self.members.items()})
        return self

    @model_validator(mode="after")
    def _key_is_usable(self) -> Self:
        if problem := unusable_key(self.identity) if self.identity else unusable_agent():
            raise problem_at("privateKey", str(self.private_key or "left out"), problem)
        return self


HostsConfig = Annotated[DockerHosts | ExistingHosts, Field(discriminator="provider")]
