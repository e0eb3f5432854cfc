"""One packet's walk: sends it, has both ends' hosts watch, and keeps what they said."""

import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from components.hosts import remote
from diagnosis import facts
from diagnosis.facts import HostFacts
from diagnosis.status import PROBE
from diagnosis.trace import ends, side
from diagnosis.trace.ends import End
from diagnosis.trace.side import Side
from workspace.outputs import Outputs

SIDE = Path(__file__).with_name("scripts") / "side.sh"
SEND = Path(__file__).with_name("scripts") / "send.sh"
WATCH_SECONDS = 20
# How much longer than its watch a host may need, its facts included.
GRACE_SECONDS = 40

_PING = re.compile(r"(?P<sent>\d+) packets transmitted, (?P<received>\d+) received")
_COMPLAINT = re.compile(
    r"^From (?P<who>\S+) .*?(?P<what>Destination .*|Packet filtered|Time to live .*)$", re.M
)
# What bash says of a connection, and whether that is an answer of the other end.
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
    """What the packet is."""

    protocol: str
    port: int | None = None

    @property
    def match(self) -> str:
        """The first packet of it, as an nft expression."""
        if self.protocol == "icmp":
            return "icmp type echo-request"
        first = " tcp flags & (syn | ack) == syn" if self.protocol == "tcp" else ""
        return f"{self.protocol} dport {self.port}{first}"

    @property
    def connection(self) -> str:
        """What conntrack has of it, as an nft expression."""
        its = f"ct original protocol {self.protocol}"
        # Its packets, and ICMP errors about them; nft wants to be told before it takes a port.
        either = f"meta l4proto {{ icmp, {self.protocol} }}"
        return f"{either} {its} ct original proto-dst {self.port}" if self.port else its

    def capture(self, source: str, sources: Sequence[str], target: str) -> str:
        """The first packet of it and the answers to it, as a pcap-filter(7).

        Args:
            source: The sender's address.
            sources: That, and others that may stand in its place.
            target: The address that it goes to.
        """
        # An error may come from any router. It quotes the packet that it is about: an IP header, and more.
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


def flow(word: str) -> Flow:
    """Read `tcp/8888`, `udp/53` or `icmp`.

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
    """Whether nothing was sent at all; the words say why."""


def outcome(flow: Flow, said: remote.Answer) -> Outcome:
    """Read what `send.sh` printed."""
    if said.status != 0:
        words = said.error or f"sending failed with status {said.status}"
        return Outcome(answered=False, words=words, failed=True)
    if flow.protocol == "icmp":
        count, complaint = _PING.search(said.text), _COMPLAINT.search(said.text)
        if count and int(count["received"]):
            return Outcome(answered=True, words=f"{count['received']} of {count['sent']} answered")
        words = f"{complaint['who']} says: {complaint['what']}" if complaint else "no echo-request answered"
        return Outcome(answered=False, words=words)
    for part, answered in _ANSWERS.items():
        if part in said.text:
            return Outcome(answered, part)
    silent = (
        "no answer within 3 s" if flow.protocol == "tcp" else "no answer within 1 s, nor does UDP owe one"
    )
    return Outcome(answered=False, words=silent)


@dataclass(frozen=True)
class Walk:
    """Everything that was seen of one packet's way."""

    stack: str
    outputs: Outputs
    hosts: Mapping[str, HostFacts]
    """What the hosts say of themselves."""
    source: End
    target: End
    flow: Flow
    sides: Mapping[str, Side]
    """What the hosts at the ends saw, and what they have."""
    outcome: Outcome

    @property
    def here(self) -> Side:
        """The sender's side."""
        assert self.source.host  # noqa: S101 - a container is on a host
        return self.sides[self.source.host]

    @property
    def there(self) -> Side | None:
        """The target's side; None where the target is outside the lab."""
        return self.sides.get(self.target.host or "")

    @property
    def one_host(self) -> bool:
        """Whether both ends are on one host."""
        return self.source.host == self.target.host

    def host_of(self, address: str | None) -> str | None:
        """The host that has an address."""
        return next((host for host, its in self.outputs.hosts.items() if its == address), None)

    def ssh(self, host: str, command: str) -> str:
        """The command that runs another on a host."""
        return f"{self.outputs.ssh[host]} {command}"


def look(outputs: Outputs, stack: str, source: str, target: str, flow: Flow) -> Walk:
    """Find both ends, and walk.

    Raises:
        ValueError: An end cannot be understood.
        NoWayError: An end has no network.
    """
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    variables = {host: {"NETWORK": outputs.network, "ENDPOINT": ""} for host in outputs.hosts}
    said = remote.ask(ssh, PROBE.read_text(), variables)
    hosts = {host: facts.parse(answer, outputs.network) for host, answer in said.items()}
    start = ends.source(source, outputs, hosts)
    end = ends.target(target, outputs, hosts)
    if start.address == end.address:
        raise ValueError(f"{target}: is {start.name} itself; what it sends to itself never leaves it")
    sides, sent = _walk(outputs, start, end, flow)
    return Walk(stack, outputs, hosts, start, end, flow, sides, outcome(flow, sent))


def _walk(outputs: Outputs, start: End, end: End, flow: Flow) -> tuple[dict[str, Side], remote.Answer]:
    """Send while the hosts at the ends watch; they say what they have when that is over."""
    assert start.host  # noqa: S101 - a container is on a host
    hosts = list(dict.fromkeys(host for host in (start.host, end.host) if host))
    ready, over = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        watches = {
            host: pool.submit(
                remote.watch,
                outputs.ssh[host],
                SIDE.read_text(),
                _variables(outputs, start, end, flow, host),
                WATCH_SECONDS + GRACE_SECONDS,
                ready=ready.release,
                over=over,
            )
            for host in hosts
        }
        try:
            for _ in hosts:
                ready.acquire()
            sent = remote.run(
                outputs.ssh[start.host],
                SEND.read_text(),
                {
                    "CONTAINER": start.container or "",
                    "TARGET": end.address,
                    "PROTOCOL": flow.protocol,
                    "PORT": str(flow.port or ""),
                },
                WATCH_SECONDS,
            )
        finally:
            over.set()
        said = {host: watch.result() for host, watch in watches.items()}
    return {host: side.parse(host, answer, end.address) for host, answer in said.items()}, sent


def _variables(outputs: Outputs, start: End, end: End, flow: Flow, host: str) -> dict[str, str]:
    # To the hosts and beyond, the sender's host may put its own address in the place of the container's.
    hidden = [outputs.hosts[start.host]] if start.host and host != start.host and not end.container else []
    sources = [start.address, *hidden]
    names = [one.container for one in (start, end) if one.host == host and one.container]
    tap = flow.capture(start.address, sources, end.address) if outputs.by_programs else ""
    return {
        "SOURCE": start.address,
        "SOURCES": ", ".join(sources),
        "TARGET": end.address,
        "MATCH": flow.match,
        "CONNECTION": flow.connection,
        "TAP": tap,
        "CONTAINERS": " ".join(names),
        "NETWORK": outputs.network,
        "LONGEST": str(WATCH_SECONDS),
    }
