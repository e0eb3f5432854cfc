"""The base of every section of the lab's config.

A section is a frozen pydantic model whose keys are written in camelCase in `Pulumi.<stack>.yaml`. Unknown
keys are refused, so that a misspelt key is an error and not a default. Every field carries a description:
the reference table in `docs/config.md` is generated from the models.
"""

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

HOST_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
MAC_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Section(BaseModel):
    """A part of the config file, immutable once it has been read."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


def _host_name(value: str) -> str:
    if not HOST_NAME.fullmatch(value):
        raise ValueError("must be a host name: at most 32 of a-z, 0-9 and '-', first a letter")
    return value


def _mac_address(value: str) -> str:
    value = value.lower()
    if not MAC_ADDRESS.fullmatch(value):
        raise ValueError("must be a MAC address such as 02:42:ac:10:06:42")
    if int(value[:2], 16) & 1:
        raise ValueError(
            "must be the MAC address of one machine, such as 02:42:ac:10:06:42; "
            "one whose first byte is odd is that of a group"
        )
    return value


def _unicast(value: IPv4Address) -> IPv4Address:
    if value.is_multicast or value.is_unspecified or value.is_loopback:
        raise ValueError("must be a unicast IPv4 address such as 172.16.6.44")
    return value


def _network(value: object) -> IPv4Network:
    try:
        return IPv4Network(value)
    except ValueError:
        raise ValueError("must be an IPv4 network without host bits, such as 172.16.6.0/24") from None


HostName = Annotated[str, AfterValidator(_host_name)]
MacAddress = Annotated[str, AfterValidator(_mac_address)]
Address = Annotated[IPv4Address, AfterValidator(_unicast)]
Network = Annotated[IPv4Network, BeforeValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
UnprivilegedPort = Annotated[int, Field(ge=1024, le=65535)]
"""Where a program without root's powers can listen."""
