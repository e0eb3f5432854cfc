"""The `network` section of the config."""

from ipaddress import IPv4Network
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.section import HostName, Network, Section


class CalicoConfig(Section):
    """The network that containers on every host share."""

    name: str = Field(
        "netv",
        pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
        description="The name of the Docker network and of Calico's pool of addresses.",
    )
    cidr: Network = Field(IPv4Network("192.168.0.0/16"), description="The containers' addresses.")
    encapsulation: Literal["none", "vxlan"] = Field(
        "none",
        description="`none`: hosts route to each other, on one L2 segment; `vxlan`: over any IP network.",
    )
    block_size: int = Field(
        26, ge=20, le=32, description="Prefix length of the blocks of addresses that a host takes at a time."
    )
    nat_outgoing: bool = Field(
        True, description="Give packets that leave the network the address of their host."
    )
    as_number: int = Field(64512, ge=1, le=4294967295, description="The BGP autonomous system of all hosts.")
    hosts: tuple[HostName, ...] | None = Field(
        None, min_length=1, description="The hosts on the network; all, when it is not given."
    )

    @field_validator("hosts")
    @classmethod
    def _hosts_differ(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if hosts and (twice := sorted({host for host in hosts if hosts.count(host) > 1})):
            raise ValueError(f"{', '.join(twice)} is named more than once; name each host once")
        return hosts

    @model_validator(mode="after")
    def _block_fits(self) -> Self:
        if self.block_size < self.cidr.prefixlen:
            raise ValueError(
                f"blockSize {self.block_size}: a block is larger than cidr {self.cidr}; "
                f"take {self.cidr.prefixlen} to 32"
            )
        return self
