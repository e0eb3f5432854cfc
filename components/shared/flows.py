"""Flows between hosts that a component needs. The firewall's guard keeps them open."""

from typing import NamedTuple


class HostFlow(NamedTuple):
    """Connections from one host to a port of another, for a component that is on both."""

    purpose: str
    origin: str
    """The name of the host that opens the connections."""
    host: str
    """The name of the host that they go to."""
    protocol: str
    port: int
