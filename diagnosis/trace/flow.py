"""Flow that is traced, and what its sender got. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from components.hosts.remote import Answer

_PING = re.compile(r"(?P<sent>\d+) packets transmitted, (?P<received>\d+) received")
_ICMP_ERROR = re.compile(
    r"^From (?P<router>\S+) .*?(?P<what>Destination .*|Packet filtered|Time to live .*)$", re.M
)
# Texts that `send.sh` prints for TCP and UDP, and whether each is an answer of the target.
_ANSWERS = {
    "Connection refused": True,
    "connected": True,
    "answered": True,
    "No route to host": False,
    "Network is unreachable": False,
    "Operation not permitted": False,
}


@dataclass(frozen=True)
class Flow:
    """Protocol and port of the packet that is sent."""

    protocol: str
    port: int | None = None

    @property
    def match(self) -> str:
        """Match of the flow's first packet, as an nft expression."""
        if self.protocol == "icmp":
            return "icmp type echo-request"
        first = " tcp flags & (syn | ack) == syn" if self.protocol == "tcp" else ""
        return f"{self.protocol} dport {self.port}{first}"

    @property
    def connection(self) -> str:
        """Match of the flow's connection and of ICMP errors about it, as an nft expression."""
        protocol = f"ct original protocol {self.protocol}"
        # nft accepts a port only after a match of the packet's protocol.
        either = f"meta l4proto {{ icmp, {self.protocol} }}"
        return f"{either} {protocol} ct original proto-dst {self.port}" if self.port else protocol

    def capture_filter(self, source: str, sources: Sequence[str], target: str) -> str:
        """Return a pcap-filter(7) for the first packet of the flow and the answers to it.

        Args:
            source: The sender's address.
            sources: The sender's address, and the addresses that NAT may replace it with.
            target: The destination address.
        """
        # A router anywhere may send an ICMP error. It quotes the IP header of the packet, and 8 more bytes.
        quoted = f"icmp[24:4] = {int(ip_address(target)):#x}"
        if self.protocol == "icmp":
            first, answers = "icmp[icmptype] = icmp-echo", "icmp[icmptype] = icmp-echoreply"
            quoted += " and icmp[17] = 1"
        else:
            first, answers = f"{self.protocol} dst port {self.port}", f"{self.protocol} src port {self.port}"
            quoted += f" and icmp[30:2] = {self.port}"
        if self.protocol == "tcp":
            first += " and tcp[tcpflags] & (tcp-syn | tcp-ack) = tcp-syn"
        senders = " or ".join(f"host {each}" for each in sources)
        error = "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply"
        return (
            f"(({senders}) and ((dst host {target} and {first}) or (src host {target} and {answers}))) "
            f"or (dst host {source} and {error} and {quoted})"
        )

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else self.protocol


def parse_flow(word: str) -> Flow:
    """Parse `tcp/8888`, `udp/53` or `icmp`.

    Raises:
        ValueError: It is none of these.
    """
    protocol, _, port = word.partition("/")
    if word == "icmp":
        return Flow("icmp")
    if protocol in ("tcp", "udp") and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535:
        return Flow(protocol, int(port))
    raise ValueError(f"{word}: must be like tcp/8888, udp/53 or icmp")


@dataclass(frozen=True)
class Outcome:
    """What the sender got."""

    answered: bool
    words: str
    failed: bool = False
    """Whether nothing was sent; `words` says why."""


def parse_outcome(flow: Flow, answer: Answer) -> Outcome:
    """Parse the output of `send.sh`."""
    if answer.status != 0:
        words = answer.error or f"sending failed with status {answer.status}"
        return Outcome(answered=False, words=words, failed=True)
    if flow.protocol == "icmp":
        count, error = _PING.search(answer.text), _ICMP_ERROR.search(answer.text)
        if count and int(count["received"]):
            return Outcome(answered=True, words=f"{count['received']} of {count['sent']} answered")
        words = f"{error['router']} says: {error['what']}" if error else "no echo-request answered"
        return Outcome(answered=False, words=words)
    for text, answered in _ANSWERS.items():
        if text in answer.text:
            return Outcome(answered, text)
    silent = (
        "no answer within 3 s" if flow.protocol == "tcp" else "no answer within 1 s, nor does UDP owe one"
    )
    return Outcome(answered=False, words=silent)
