"""Scripts that send or trace packets on a host, and their variables. Pure.

`send.sh` runs on the host that a packet comes from, and `trace.sh` on the host whose kernel names the rules
that the packet meets; `xtables.parse_trace` parses its output. `counters.sh` prints the counters of the lab's
rules.
"""

from pathlib import Path

from components.firewall.rules.evaluate import Packet

_SCRIPTS = Path(__file__).with_name("scripts")
TRACE_SCRIPT = _SCRIPTS / "trace.sh"
SEND_SCRIPT = _SCRIPTS / "send.sh"
COUNTERS_SCRIPT = _SCRIPTS / "counters.sh"
TRACE_SECONDS = 5
"""How long a trace waits for packets."""
EXTRA_SEND_SECONDS = 2
"""How much longer the packets are sent, because the trace starts later on a busy host."""
TIMEOUT_SECONDS = TRACE_SECONDS + 20
"""How long a host may take to trace or send and to answer."""
_ECHO_REQUEST = 8


def trace_variables(packet: Packet) -> dict[str, str]:
    """Return the variables of `trace.sh` for the first packet of a flow, not for existing connections."""
    ipv4 = packet.family == "ipv4"
    match = f"{packet.protocol} dport {packet.port}"
    if packet.protocol == "icmp":
        match = f"{'icmp' if ipv4 else 'icmpv6'} type {packet.icmp_type}"
    elif packet.protocol == "tcp":
        match += " tcp flags & (syn | ack) == syn"
    return {
        "FAMILY": "ip" if ipv4 else "ip6",
        "SOURCE": str(packet.source),
        "DESTINATION": str(packet.destination),
        "MATCH": match,
        "DURATION": str(TRACE_SECONDS),
    }


def answer_variables(packet: Packet) -> dict[str, str]:
    """Return the variables of `trace.sh` that match the answers, on the host that sends the packet.

    Args:
        packet: A packet with ports.
    """
    return {
        **trace_variables(packet),
        "SOURCE": str(packet.destination),
        "DESTINATION": str(packet.source),
        "MATCH": f"{packet.protocol} sport {packet.port}",
    }


def send_variables(
    destination: str, protocol: str, port: int | None, *, container: str = "", seconds: int = 0
) -> dict[str, str]:
    """Return the variables of `send.sh`.

    Args:
        destination: The address.
        protocol: `tcp`, `udp` or `icmp`.
        port: The port; None for icmp.
        container: The container that sends; empty for the host.
        seconds: How long packets are sent; 0 for one.
    """
    return {
        "CONTAINER": container,
        "DESTINATION": destination,
        "PROTOCOL": protocol,
        "PORT": str(port or ""),
        "DURATION": str(seconds),
    }


def repeated_send_variables(packet: Packet) -> dict[str, str] | None:
    """Return the variables of `send.sh` for the time of a trace; None for a packet that it cannot send."""
    if packet.protocol not in ("tcp", "udp") and packet.icmp_type != _ECHO_REQUEST:
        return None
    seconds = TRACE_SECONDS + EXTRA_SEND_SECONDS
    return send_variables(str(packet.destination), packet.protocol, packet.port, seconds=seconds)
