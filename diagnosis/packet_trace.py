"""What is asked of hosts to see what becomes of a packet on its way: the scripts, and their variables. Pure.

`send.sh` and `try.sh` run where a packet comes from, and `trace.sh` on the host whose kernel shall say which
rules the packet meets. What it prints is read by `why.read_trace`.
"""

from pathlib import Path

from components.firewall.rules.evaluate import Packet

_SCRIPTS = Path(__file__).with_name("scripts")
TRACE = _SCRIPTS / "trace.sh"
SEND = _SCRIPTS / "send.sh"
TRY = _SCRIPTS / "try.sh"
SECONDS = 5
"""How long a trace waits for packets."""
LONGER = 2
"""How much longer its source sends them: the trace of a busy host begins later."""
ICMP_ECHO_REQUEST = 8


def trace_variables(packet: Packet) -> dict[str, str]:
    """What `trace.sh` is asked: the first packets of the flow, not those of connections that exist."""
    version4 = packet.family == "ipv4"
    match = f"{packet.protocol} dport {packet.port}"
    if packet.protocol == "icmp":
        match = f"{'icmp' if version4 else 'icmpv6'} type {packet.icmp_type}"
    elif packet.protocol == "tcp":
        match += " tcp flags & (syn | ack) == syn"
    return {
        "FAMILY": "ip" if version4 else "ip6",
        "SOURCE": str(packet.source),
        "DESTINATION": str(packet.destination),
        "MATCH": match,
        "DURATION": str(SECONDS),
    }


def answer_variables(packet: Packet) -> dict[str, str]:
    """What `trace.sh` is asked on the host that sends the packet: the way of the answers to it.

    Args:
        packet: One with ports.
    """
    return {
        **trace_variables(packet),
        "SOURCE": str(packet.destination),
        "DESTINATION": str(packet.source),
        "MATCH": f"{packet.protocol} sport {packet.port}",
    }


def send_variables(packet: Packet) -> dict[str, str] | None:
    """What `send.sh` is asked; None for a packet that it cannot send, which then has to come by itself."""
    if packet.protocol not in ("tcp", "udp") and packet.icmp_type != ICMP_ECHO_REQUEST:
        return None
    return {
        "DESTINATION": str(packet.destination),
        "PROTOCOL": packet.protocol,
        "PORT": str(packet.port or ""),
        "DURATION": str(SECONDS + LONGER),
    }
