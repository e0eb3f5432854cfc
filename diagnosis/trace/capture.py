"""Trace of a packet through one host, from what tcpdump(8) captured on its interfaces. Pure.

With dataplane ebpf, BPF programs at the interfaces forward packets, and these do not meet netfilter. tcpdump
sees an incoming packet before the program of its interface, and an outgoing packet after it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from diagnosis.trace.packet_trace import PacketTrace

# `tcpdump -v` prints two lines for a packet. The first has interface and direction. A decapsulated packet has
# the direction P, because its destination MAC address is not the interface's.
_HEADER = re.compile(
    r"(?P<interface>\S+)\s+(?P<direction>In|P|Out)\s+IP \(.*?ttl (?P<ttl>\d+), id (?P<id>\d+),.*"
)
_PACKET = re.compile(r"    (?P<source>\S+) > (?P<target>\S+): (?P<words>.*)")
# Differs between interfaces, or is not needed.
_REST = re.compile(r", (cksum|length) .*")
_FLAGS = re.compile(r"Flags \[(?P<flags>\S+)\]")
_FLAG_NAMES = {"S": "SYN", ".": "ACK", "R": "RST"}
_ADDRESS = re.compile(r"(?P<address>\d+\.\d+\.\d+\.\d+)(?:\.(?P<port>\d+))?")


@dataclass(frozen=True)
class CapturedPacket:
    """A packet at an interface."""

    interface: str
    out: bool
    """Whether it goes out by the interface."""
    ttl: int
    source: str
    source_port: str | None
    target: str
    target_port: str | None
    identity: tuple[str, ...]
    """Fields that are the same at each interface, NAT or not."""
    words: str
    """What tcpdump prints about its content."""


def parse_capture(lines: Iterable[str]) -> Iterator[CapturedPacket]:
    """Parse what tcpdump printed, without the packets that ICMP errors quote."""
    header = None
    for line in lines:
        packet = _PACKET.match(line) if header else None
        if header and packet:
            source, target = _ADDRESS.fullmatch(packet["source"]), _ADDRESS.fullmatch(packet["target"])
            words = _REST.sub("", packet["words"])
            if source and target:
                yield CapturedPacket(
                    interface=header["interface"],
                    out=header["direction"] == "Out",
                    ttl=int(header["ttl"]),
                    source=source["address"],
                    source_port=source["port"],
                    target=target["address"],
                    target_port=target["port"],
                    identity=(header["id"], source["port"] or "", target["port"] or "", words),
                    words=words,
                )
        header = _HEADER.match(line)


def captured_traces(
    host: Iterable[str], containers: Mapping[str, Iterable[str]], target: str
) -> Mapping[str, PacketTrace]:
    """Return the traces of the first `request` and the first `answer`, if they came to this host.

    Args:
        host: What was captured on the host's interfaces.
        containers: What was captured on the containers' interfaces, by container.
        target: The destination address of the request.
    """
    on_host = list(parse_capture(host))
    in_containers = [packet for lines in containers.values() for packet in parse_capture(lines)]
    request = next((packet for packet in on_host if packet.target == target), None)
    if request is None:
        return {}
    answer = next(
        (packet for packet in on_host if packet.target != target and _is_answer(packet, request)), None
    )
    found = {"request": _trace(request, on_host, in_containers)}
    if answer:
        found["answer"] = _trace(answer, on_host, in_containers, summary=_summary(answer.words))
    return found


def merge(captured: PacketTrace | None, traced: PacketTrace | None) -> PacketTrace | None:
    """Merge the traces of one packet from a capture and from the rules that it met."""
    if captured is None or traced is None:
        return captured or traced
    return PacketTrace(
        in_interface=captured.in_interface or traced.in_interface,
        out_interface=traced.out_interface or captured.out_interface,
        source=traced.source if traced.out_interface else captured.source,
        summary=captured.summary or traced.summary,
        ttl=captured.ttl or traced.ttl,
        reached=captured.reached | traced.reached,
        steps=traced.steps,
    )


def _is_answer(packet: CapturedPacket, request: CapturedPacket) -> bool:
    """Whether a packet is of the request's connection. An ICMP error has no ports."""
    return packet.target_port is None or packet.target_port == request.source_port


def _trace(
    packet: CapturedPacket,
    on_host: Iterable[CapturedPacket],
    in_containers: Iterable[CapturedPacket],
    summary: str = "",
) -> PacketTrace:
    same = [one for one in on_host if one.identity == packet.identity]
    out = [one.interface for one in same if one.out]
    # A program may redirect it into the container, past the host's end of the veth pair.
    arrives = any(not one.out and one.identity == packet.identity for one in in_containers)
    return PacketTrace(
        in_interface=next((one.interface for one in same if not one.out), ""),
        out_interface=out[-1] if out else "",
        source=same[-1].source,
        summary=summary,
        ttl=same[0].ttl,
        reached={"sent"} if out or arrives else set(),
    )


def _summary(words: str) -> str:
    if flags := _FLAGS.match(words):
        return " ".join(word for flag, word in _FLAG_NAMES.items() if flag in flags["flags"])
    return words if words.startswith("ICMP") and "echo reply" not in words else ""
