"""The `network` section of the config."""

from ipaddress import IPv4Network
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.calico.policy_config import Policy
from components.shared.policy_values import PolicyName
from components.shared.section import NO_TRUTH_VALUE, HostName, Network, Section, Whole, listed, problem_at

VXLAN_OVERHEAD = 50
"""Bytes of the headers around a packet: Ethernet, IPv4, UDP, VXLAN (RFC 7348, section 5)."""
WIREGUARD_OVERHEAD = 60
"""Bytes around a packet: IPv4, UDP, and WireGuard's own header and tag."""
DOCKER0 = IPv4Network("172.17.0.0/16")
"""The network of every host's docker0, which Docker makes first: the first of its default-address-pools."""
NAMES_TAKEN = ("bridge", "default", "host", "ingress", "none", "calico-lab")
"""Docker's own networks and words (docker-run(1)), and the network of host containers."""
# IANA, "Special-Purpose AS Numbers"; the others are for anyone who has no number of his own.
AS_NUMBERS_TAKEN = {23456: "RFC 6793", 65535: "RFC 7300", 4294967295: "RFC 7300"}


class CalicoConfig(Section):
    """The `network` section of the config."""

    name: str = Field(
        "netv",
        pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
        description="The name of the Docker network and of Calico's pool of addresses.",
    )
    cidr: Network = Field(
        IPv4Network("192.168.0.0/16"),
        description="The containers' addresses: a private network (RFC 1918, 6598, 2544 or 5737) without "
        f"docker0's {DOCKER0}, with a block for every host.",
    )
    encapsulation: Literal["none", "vxlan", "vxlan-cross-subnet"] = Field(
        "none",
        description="`none`: hosts route to each other, on one L2 segment; `vxlan`: over any IP network; "
        "`vxlan-cross-subnet`: VXLAN only between hosts that are not on one subnet. Containers keep running.",
    )
    dataplane: Literal["iptables", "ebpf"] = Field(
        "iptables",
        description="What Calico filters packets with. `iptables`: rules, which every tool shows; `ebpf`: "
        "programs in the kernel (5.10 or newer) that pass packets from interface to interface, without "
        "rules: about as fast as a plain route. Containers keep running.",
    )
    wireguard: bool = Field(
        False,
        description="Encrypt packets between hosts; refused if a host's kernel has no WireGuard.",
    )
    mtu: Annotated[int, Field(ge=1280, le=65535), NO_TRUTH_VALUE] | None = Field(
        None,
        description="The MTU of containers' interfaces; a change replaces the network and its "
        f"containers. Left out: that of the hosts' link, less {VXLAN_OVERHEAD} with VXLAN and "
        f"{WIREGUARD_OVERHEAD} with WireGuard.",
    )
    block_size: Whole = Field(
        26,
        ge=20,
        le=32,
        description="Prefix length of the blocks of addresses that a host takes at a time; a change "
        "replaces the network and its containers.",
    )
    nat_outgoing: bool = Field(
        True, description="Give packets that leave the network the address of their host."
    )
    as_number: Whole = Field(
        64512,
        ge=1,
        le=4294967295,
        description="The BGP autonomous system of all hosts; RFC 6996 keeps 64512 to 65534 and 4200000000 to "
        "4294967294 for private use.",
    )
    route_reflectors: tuple[HostName, ...] = Field(
        (),
        description="The hosts that pass on the routes of all others (RFC 4456), which then peer with "
        "these alone; without any, each host peers with every other.",
    )
    hosts: tuple[HostName, ...] | None = Field(
        None, min_length=1, description="The hosts on the network; all, when it is not given."
    )
    policies: dict[PolicyName, Policy] = Field(
        default_factory=dict,
        description="The network policies, by name; each is switched by its `enabled`.",
    )

    @property
    def overhead(self) -> int:
        """The most bytes that encapsulation and encryption add to a packet."""
        vxlan = 0 if self.encapsulation == "none" else VXLAN_OVERHEAD
        return max(vxlan, WIREGUARD_OVERHEAD if self.wireguard else 0)

    @property
    def blocks(self) -> int:
        """How many blocks the pool consists of."""
        return 1 << (self.block_size - self.cidr.prefixlen)

    @property
    def tunnels(self) -> int:
        """How many addresses of the pool each host takes as an end of tunnels."""
        return int(self.encapsulation != "none") + int(self.wireguard)

    @property
    def pool(self) -> str:
        """What of the pool of addresses cannot be changed while containers have some of them."""
        return f"{self.name}: {self.cidr} in blocks of /{self.block_size}"

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in NAMES_TAKEN:
            raise ValueError(
                f"is the name of a network that Docker has; must be another than {listed(NAMES_TAKEN)}"
            )
        return name

    @field_validator("cidr")
    @classmethod
    def _docker0_is_elsewhere(cls, cidr: IPv4Network) -> IPv4Network:
        if cidr.overlaps(DOCKER0):
            raise ValueError(
                f"overlaps docker0's network on the hosts; must be a private network without {DOCKER0}"
            )
        return cidr

    @field_validator("as_number")
    @classmethod
    def _as_number_is_free(cls, number: int) -> int:
        if number in AS_NUMBERS_TAKEN:
            raise ValueError(
                f"is kept for another purpose ({AS_NUMBERS_TAKEN[number]}); must be another than "
                f"{listed([*AS_NUMBERS_TAKEN])}"
            )
        return number

    @field_validator("hosts", "route_reflectors")
    @classmethod
    def _hosts_differ(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if hosts and (twice := sorted({host for host in hosts if hosts.count(host) > 1})):
            raise ValueError(f"{', '.join(twice)} is named more than once; name each host once")
        return hosts

    @model_validator(mode="after")
    def _block_fits(self) -> Self:
        if self.block_size < self.cidr.prefixlen:
            raise problem_at(
                "blockSize",
                self.block_size,
                f"a block is larger than cidr {self.cidr}; must be from {self.cidr.prefixlen} to 32",
            )
        return self
