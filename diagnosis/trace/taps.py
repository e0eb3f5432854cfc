"""A packet's way past the rules of one host, from what tcpdump(8) saw on the interfaces. Pure.

With dataplane ebpf, programs at the interfaces hand packets on, and netfilter does not meet them. A tap sees
a packet that comes in by an interface before the program there does, and one that goes out after it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from diagnosis.trace.packets import Passage

# tcpdump -v on all interfaces: a packet is a line on how it came, and one on what it is.
# What a tunnel brings is addressed to no interface's MAC, so that it comes in as another host's (P).
_HEADER = re.compile(r"(?P<interface>\S+)\s+(?P<way>In|P|Out)\s+IP \(.*?ttl (?P<ttl>\d+), id (?P<id>\d+),.*")
_PACKET = re.compile(r"    (?P<source>\S+) > (?P<target>\S+): (?P<words>.*)")
# What may differ from place to place, or says nothing.
_REST = re.compile(r", (cksum|length) .*")
_FLAGS = re.compile(r"Flags \[(?P<flags>\S+)\]")
_WORDS = {"S": "SYN", ".": "ACK", "R": "RST"}
_PORT = re.compile(r"(?P<address>\d+\.\d+\.\d+\.\d+)(?:\.(?P<port>\d+))?")


@dataclass(frozen=True)
class Sight:
    """A packet at an interface."""

    interface: str
    out: bool
    """Whether it goes out by the interface, and does not come in."""
    ttl: int
    source: str
    source_port: str | None
    target: str
    target_port: str | None
    identity: tuple[str, ...]
    """What is the same wherever this packet is seen."""
    words: str
    """What it says."""


def read(lines: Iterable[str]) -> Iterator[Sight]:
    """Read what tcpdump printed; packets that it quotes, in an ICMP error, are none of their own."""
    header = None
    for line in lines:
        packet = _PACKET.match(line) if header else None
        if header and packet:
            source, target = _PORT.fullmatch(packet["source"]), _PORT.fullmatch(packet["target"])
            words = _REST.sub("", packet["words"])
            if source and target:
                yield Sight(
                    interface=header["interface"],
                    out=header["way"] == "Out",
                    ttl=int(header["ttl"]),
                    source=source["address"],
                    source_port=source["port"],
                    target=target["address"],
                    target_port=target["port"],
                    identity=(header["id"], source["port"] or "", target["port"] or "", words),
                    words=words,
                )
        header = _HEADER.match(line)


def passages(host: Iterable[str], inside: Mapping[str, Iterable[str]], target: str) -> Mapping[str, Passage]:
    """Find the way of the first `request` and of the first `answer`, as far as they came here.

    Args:
        host: What was seen on the host's interfaces.
        inside: What was seen on those of the containers, by container.
        target: The address that the request goes to.
    """
    here = list(read(host))
    there = [sight for lines in inside.values() for sight in read(lines)]
    request = next((sight for sight in here if sight.target == target), None)
    if request is None:
        return {}
    answer = next((sight for sight in here if sight.target != target and _fits(sight, request)), None)
    found = {"request": _passage(request, here, there)}
    if answer:
        found["answer"] = _passage(answer, here, there, says=_says(answer.words))
    return found


def together(tapped: Passage | None, traced: Passage | None) -> Passage | None:
    """One passage, of what taps saw of a packet and of what the rules say that it met, if it came to any."""
    if tapped is None or traced is None:
        return tapped or traced
    return Passage(
        came=tapped.came or traced.came,
        left=traced.left or tapped.left,
        source=traced.source if traced.left else tapped.source,
        says=tapped.says or traced.says,
        ttl=tapped.ttl or traced.ttl,
        reached=tapped.reached | traced.reached,
        steps=traced.steps,
    )


def _fits(answer: Sight, request: Sight) -> bool:
    """Whether it is of the same connection: an ICMP error has no ports."""
    return answer.target_port is None or answer.target_port == request.source_port


def _passage(packet: Sight, here: Iterable[Sight], there: Iterable[Sight], says: str = "") -> Passage:
    seen = [sight for sight in here if sight.identity == packet.identity]
    out = [sight.interface for sight in seen if sight.out]
    # Into a container a program may hand it straight, past the host's end of its veth pair.
    arrives = any(not sight.out and sight.identity == packet.identity for sight in there)
    return Passage(
        came=next((sight.interface for sight in seen if not sight.out), ""),
        left=out[-1] if out else "",
        source=seen[-1].source,
        says=says,
        ttl=seen[0].ttl,
        reached={"leaves"} if out or arrives else set(),
    )


def _says(words: str) -> str:
    if flags := _FLAGS.match(words):
        return " ".join(word for flag, word in _WORDS.items() if flag in flags["flags"])
    return words if words.startswith("ICMP") and "echo reply" not in words else ""
