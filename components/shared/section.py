"""The base class of the config's sections, and the value types that sections share.

A section is a frozen pydantic model. Its keys are in camelCase in `Pulumi.<stack>.yaml`. Unknown keys are
refused, because a misspelt key would otherwise be ignored. Every field has a description, from which
`docs/config.md` and `config/schema.json` are generated.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

PRIVATE_NETWORKS = tuple(
    IPv4Network(network)
    for network in (
        # Private use: RFC 1918, section 3.
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        # Shared address space: RFC 6598, section 7. Benchmarks: RFC 2544, appendix C.
        *("100.64.0.0/10", "198.18.0.0/15"),
        # Documentation: RFC 5737, section 3. No host on the Internet has these addresses.
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    )
)
"""Networks that are not on the Internet. With another one, hosts could not reach its owners."""
LINK_LOCAL = IPv4Network("169.254.0.0/16")
"""RFC 3927. It contains 169.254.1.1, the gateway of Calico's containers."""
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
"""RFC 791, section 3.2: not an address of a host."""

HOST_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
MAC_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Section(BaseModel):
    """A section of the config file; immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
    )


UNFIT = "unfit"
"""Error type of a value of the wrong type; the message is what the field accepts."""


def problem_at(path: str, value: object, problem: str) -> PydanticCustomError:
    """Create the error for a value inside the value that a validator checks.

    Args:
        path: The path of the value in the section.
        value: The value.
        problem: The problem, then what is accepted.
    """
    return PydanticCustomError(
        "at", "{path}: {value}: {problem}", {"path": path, "value": value, "problem": problem}
    )


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


def _number(value: object) -> object:
    # Pydantic converts true to 1.
    if isinstance(value, bool):
        raise PydanticCustomError(UNFIT, "true and false are no numbers")
    return value


def _text(value: object) -> object:
    # ipaddress accepts numbers too, and `true` would be 0.0.0.1.
    if not isinstance(value, str | IPv4Address):
        raise PydanticCustomError(UNFIT, "an address is written as text")
    return value


def _unicast(value: IPv4Address) -> IPv4Address:
    # RFC 1112, section 4: addresses from 240.0.0.0 are reserved; the last one is the broadcast address.
    if value.is_multicast or value.is_loopback or value.is_reserved or value in _THIS_NETWORK:
        raise ValueError("must be a unicast IPv4 address such as 172.16.6.44")
    if value in LINK_LOCAL:
        raise ValueError(f"must be an address that is not link-local ({LINK_LOCAL}, RFC 3927)")
    return value


def _network(value: object) -> IPv4Network:
    try:
        # ipaddress also accepts numbers and other forms of masks.
        return value if isinstance(value, IPv4Network) else IPv4Network(value if is_cidr(value) else "")
    except ValueError:
        raise ValueError("must be an IPv4 network without host bits, such as 172.16.6.0/24") from None


def is_cidr(value: object) -> TypeGuard[str]:
    """Whether a value has the form `172.16.6.0/24`."""
    return isinstance(value, str) and re.fullmatch(r"[0-9.]+/[0-9]{1,2}", value) is not None


def _private_network(network: IPv4Network) -> IPv4Network:
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        others = "holds public or special addresses"
        if network.overlaps(LINK_LOCAL):
            others = "holds link-local addresses, of which 169.254.1.1 is the gateway of containers"
        raise ValueError(f"{others}; must be inside one of {listed(PRIVATE_NETWORKS)}")
    return network


def expanded(path: Path) -> Path:
    """Returns a path with `~` or `~user` replaced by the home folder.

    Raises:
        ValueError: There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of an unknown user; must be the path of a file") from None


def listed(values: Sequence[object]) -> str:
    """Returns the values as text: `a, b, c`."""
    return ", ".join(map(str, values))


NO_TRUTH_VALUE = BeforeValidator(_number)
Whole = Annotated[int, NO_TRUTH_VALUE]
"""A whole number, or text with one, because `pulumi config set` can write text."""
Number = Annotated[float, NO_TRUTH_VALUE]
HostName = Annotated[str, AfterValidator(_host_name)]
MacAddress = Annotated[str, AfterValidator(_mac_address)]
Address = Annotated[IPv4Address, BeforeValidator(_text), AfterValidator(_unicast)]
Network = Annotated[IPv4Network, BeforeValidator(_network), AfterValidator(_private_network)]
"""An IPv4 network inside one of `PRIVATE_NETWORKS`."""
ExpandedPath = Annotated[Path, AfterValidator(expanded)]
"""A path without `~`."""
# Port ranges: RFC 6335, section 6.
Port = Annotated[int, Field(ge=1, le=65535), NO_TRUTH_VALUE]
UnprivilegedPort = Annotated[int, Field(ge=1024, le=65535), NO_TRUTH_VALUE]
"""A port on which a program without CAP_NET_BIND_SERVICE can listen (ip_unprivileged_port_start)."""
