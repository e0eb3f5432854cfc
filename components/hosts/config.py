"""The `hosts` section of the config: machines made by Docker, or machines that exist already."""

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.section import Address, HostName, MacAddress, Network, Port, Section

RESERVED = ("visitor", "operator")
"""What is called so without being one of the lab's machines, in rules and in the lab itself."""


def _free_name(value: str) -> str:
    if value in RESERVED:
        raise ValueError(f"this name is kept for the {value}; choose another")
    return value


MemberName = Annotated[HostName, AfterValidator(_free_name)]


class DockerMachine(Section):
    """A machine that is made as a container."""

    address: Address = Field(description="Its fixed address, inside `network`.")
    mac: MacAddress | None = Field(None, description="Its fixed MAC address, for rules by source MAC.")


def _check_macs(by_path: Mapping[str, str | None]) -> None:
    """Refuse a MAC address that two machines have; `by_path` has them by where they stand in the section."""
    seen: dict[str, str] = {}
    for where, mac in by_path.items():
        if mac in seen:
            raise ValueError(f"{where}.mac {mac} is taken already by {seen[mac]}")
        if mac:
            seen[mac] = where


class DockerHosts(Section):
    """Machines made as systemd containers on the controller's Docker engine."""

    provider: Literal["docker"] = Field(description="`docker`: make the machines as containers.")
    release: Literal["bookworm", "trixie"] = Field(
        "trixie", description="The release of Debian that they run, and with it the Docker engine: 12 or 13."
    )
    network: Network = Field(description="The network of the machines; free on the controller.")
    members: dict[MemberName, DockerMachine] = Field(
        min_length=1, description="The machines of the lab by name."
    )
    visitor: DockerMachine | None = Field(None, description="A plain machine to try firewall policies from.")

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        addresses: dict[IPv4Address, str] = {self.network.network_address + 1: "the network's gateway"}
        for where, machine in self._machines().items():
            address = machine.address
            if address not in self.network or address in (
                self.network.network_address,
                self.network.broadcast_address,
            ):
                raise ValueError(f"{where}.address {address} is not a host address of network {self.network}")
            if address in addresses:
                raise ValueError(f"{where}.address {address} is taken already by {addresses[address]}")
            addresses[address] = where
        return self

    @model_validator(mode="after")
    def _macs_differ(self) -> Self:
        _check_macs({where: machine.mac for where, machine in self._machines().items()})
        return self

    def _machines(self) -> dict[str, DockerMachine]:
        """Every machine by where it stands in the config."""
        members = {f"members.{name}": member for name, member in self.members.items()}
        return {**members, **({"visitor": self.visitor} if self.visitor else {})}


class ExistingMember(Section):
    """A machine that the operator has: Debian 12+ or Ubuntu 22.04+ that answers SSH."""

    address: Address = Field(description="Where SSH answers, and where the other machines reach it.")
    port: Port = Field(22, description="The port of SSH.")
    mac: MacAddress | None = Field(
        None, description="The MAC address that the other machines see it at, for rules by source MAC."
    )
    user: str = Field(
        "root", pattern=r"^[a-z_][a-z0-9_-]*$", description="root, or a sudoer without password."
    )
    host_key: str | None = Field(
        None,
        pattern=r"^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/=]+$",
        description="Its public host key, `ssh-ed25519 AAAA...`; without it, the key in `knownHosts`.",
    )


class ExistingHosts(Section):
    """Machines that the operator has."""

    provider: Literal["existing"] = Field(description="`existing`: take machines that are there.")
    members: dict[MemberName, ExistingMember] = Field(
        min_length=1, description="The machines of the lab by name."
    )
    private_key: Path = Field(description="Path of the SSH private key, without passphrase.")
    known_hosts: Path = Field(
        Path("~/.ssh/known_hosts"), description="Where host keys stand that are not given with the member."
    )

    @model_validator(mode="after")
    def _addresses_differ(self) -> Self:
        seen: dict[IPv4Address, str] = {}
        for name, member in self.members.items():
            if member.address in seen:
                raise ValueError(
                    f"members.{name}.address {member.address} is that of {seen[member.address]} too"
                )
            seen[member.address] = name
        return self

    @model_validator(mode="after")
    def _macs_differ(self) -> Self:
        _check_macs({f"members.{name}": member.mac for name, member in self.members.items()})
        return self

    @model_validator(mode="after")
    def _key_is_readable(self) -> Self:
        path = self.private_key.expanduser()
        if not path.is_file():
            raise ValueError(f"privateKey {path} is not a file; give the path of an SSH private key")
        return self


HostsConfig = Annotated[DockerHosts | ExistingHosts, Field(discriminator="provider")]
