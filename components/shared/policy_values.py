"""Values that firewall policies and network policies share: names, networks, ports, and their error.

Pure. A value is checked when the config is read, and is kept in its canonical spelling.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

IpNetwork = IPv4Network | IPv6Network
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
_NAME = re.compile(r"[a-z][A-Za-z0-9-]{0,61}")
_PORTS = re.compile(r"([0-9]{1,5})(?:[-:]([0-9]{1,5}))?")


class PolicyError(ValueError):
    """Policies that are invalid, or that block what the lab needs; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def is_name(value: str) -> bool:
    """Whether a source or destination is a name, such as `a0` or `operator`, and not an address."""
    return _NAME.fullmatch(value) is not None


def parse_network(value: str) -> IpNetwork | None:
    """Parse an address or a CIDR.

    Returns:
        The network; None if the value is neither.

    Raises:
        ValueError: The CIDR has host bits set, which is usually a mistake.
    """
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        return None
    address = value.partition("/")[0]
    if network.network_address != ip_network(address).network_address:
        raise ValueError(f"has host bits set: write {network} for the network or {address} for one address")
    return network


def parse_ports(value: Any) -> str:  # noqa: ANN401 - any value of the config file
    """Parse a port or a range; return `<port>` or `<first>-<last>`.

    Raises:
        ValueError: The value is neither.
    """
    found = None if isinstance(value, bool) else _PORTS.fullmatch(str(value))
    numbers = [int(port) for port in found.groups() if port] if found else []
    if not numbers or not 1 <= numbers[0] <= numbers[-1] <= 65535:
        raise ValueError('must be a port from 1 to 65535, or a range such as "8000-8100"')
    return "-".join(dict.fromkeys(str(number) for number in numbers))


def contains_port(ports: str, port: int | None) -> bool:
    """Whether a port is in what `parse_ports` returned; None is a packet without a port."""
    first, _, last = ports.partition("-")
    return port is not None and int(first) <= port <= int(last or first)


def require_port_protocol(ports: tuple[str, ...], protocol: str | None) -> None:
    """Check that a rule with ports names a protocol that has ports.

    Raises:
        ValueError: It does not.
    """
    if ports and protocol not in PORT_PROTOCOLS:
        raise ValueError(f"ports need protocol: one of {', '.join(PORT_PROTOCOLS)}")


def _as_list(value: Any) -> Any:  # noqa: ANN401
    return [value] if isinstance(value, str | int) else value


ONE_OR_LIST = BeforeValidator(_as_list)
"""Accepts a single value where the field is a list."""
Ports = Annotated[tuple[Annotated[str, BeforeValidator(parse_ports)], ...], ONE_OR_LIST]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
