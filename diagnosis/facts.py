"""What hosts say of themselves: the lines of `status.sh` as typed facts. Pure; it judges nothing."""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from components.hosts.remote import Answer

# confd names BIRD's protocols after the peer's address (confd/etc/calico/confd/templates/bird.cfg.template).
_PEER = re.compile(r"(?:Mesh|Node|Global)_(\d+)_(\d+)_(\d+)_(\d+)$")


@dataclass(frozen=True)
class Member:
    """An etcd member, as it answers on its own client URL."""

    healthy: bool
    error: str = ""
    version: str = ""
    leader: bool = False
    size: int = 0
    """Bytes of its database."""
    members: tuple[str, ...] = ()
    """The names of the cluster's members in its eyes."""


@dataclass(frozen=True)
class Session:
    """A BGP session, in BIRD's words."""

    state: str
    since: str = ""

    @property
    def established(self) -> bool:
        """Whether routes are exchanged."""
        return self.state == "Established"


@dataclass(frozen=True)
class Container:
    """A container on a host."""

    name: str
    image: str
    state: str
    health: str | None
    address: str | None
    """Its address on the lab's network; None where it is not on it."""
    as_host: bool
    """Whether it has no network but its host's."""
    stack: str | None
    """The stack that made it; None for the operator's own containers."""

    @property
    def condition(self) -> str:
        """How it is: its health where it runs and has a health check, and else its state."""
        return self.health or self.state if self.state == "running" else self.state


@dataclass(frozen=True)
class Certificate:
    """A certificate in a file on a host."""

    file: str
    """Its path there."""
    ends: datetime
    """The last moment of its validity, UTC."""
    days: int
    """Whole days until then by the host's own clock; negative when it has ended."""


@dataclass(frozen=True)
class FileSystem:
    """A file system on which the lab writes."""

    path: str
    """Where it is mounted."""
    free: int
    """Bytes that programs can have."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class HostFacts:
    """What one host said."""

    reached: bool
    error: str = ""
    complete: bool = False
    release: str = ""
    uptime: int = 0
    """Seconds since its first process started."""
    kernel: str = ""
    """Identity of the running kernel: containers of one machine have the same."""
    memory: int | None = None
    """Bytes that programs can have; None where the host does not say it."""
    disks: Sequence[FileSystem] = ()
    """Those with the lab's and Docker's data."""
    certificates: Sequence[Certificate] = ()
    """Those with which its programs prove who they are, and those of the authorities that they trust."""
    units: Mapping[str, str] = field(default_factory=dict)
    """State of each enabled unit of the lab, and of Docker."""
    member: Member | None = None
    felix: str | None = None
    """The status line of Felix's readiness; None without an answer."""
    driver: str | None = None
    """The status line of the Docker driver's readiness; None without an answer."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """BGP session by the peer's address."""
    network: str | None = None
    """The driver of the lab's Docker network; None where there is no such network."""
    containers: Sequence[Container] = ()
    rules: Mapping[str, int] = field(default_factory=dict)
    """Number of rules by chain of the firewall's own (`iptables CALICO-LAB-INPUT`)."""
    loaded: Mapping[str, int] = field(default_factory=dict)
    """How many of them were loaded there, likewise."""
    pending: bool = False
    """Whether a change of the firewall waits for its confirmation."""

    @property
    def on_network(self) -> bool:
        """Whether Calico is installed there."""
        return "calico-lab-bird.service" in self.units


def parse(answer: Answer, network: str) -> HostFacts:
    """Read a host's answer to `status.sh`; an answer that broke off gives the facts up to there."""
    if not answer.reached:
        return HostFacts(reached=False, error=answer.error)
    try:
        return _facts(answer, network)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return HostFacts(reached=True, error=str(error))


def by_name(text: str) -> dict[str, list[str]]:
    """The facts of a probe, one a line with its name in front; a name that does not occur has none."""
    lines: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        lines[name].append(value.strip())
    return lines


def _facts(answer: Answer, network: str) -> HostFacts:
    lines = by_name(answer.text)
    uptime = _first(lines["uptime"])
    chains = [_chain(line) for line in lines["chain"]]
    return HostFacts(
        reached=True,
        error=answer.error,
        complete="complete" in lines,
        release=_first(lines["release"]) or "",
        uptime=int(uptime) if uptime and uptime.isdigit() else 0,
        kernel=_first(lines["kernel"]) or "",
        memory=int(lines["memory"][0]) * 1024 if lines["memory"] else None,
        disks=[_disk(line) for line in lines["disk"]],
        certificates=[_certificate(line, int(lines["clock"][0])) for line in lines["certificate"]],
        units=dict(_pair(line) for line in lines["unit"]),
        member=_member(lines),
        felix=_first(lines["felix"]),
        driver=_first(lines["driver"]),
        sessions=dict(session for line in lines["bgp"] if (session := _session(line))),
        network=_first(lines["network"]),
        containers=[_container(json.loads(line), network) for line in lines["container"]],
        rules={chain: there for chain, there, _ in chains},
        loaded={chain: loaded for chain, _, loaded in chains},
        pending="firewall" in lines,
    )


def _first(lines: Sequence[str]) -> str | None:
    return (lines[0] or None) if lines else None


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def _disk(line: str) -> FileSystem:
    size, free, path = line.split(maxsplit=2)
    return FileSystem(path, int(free) * 1024, int(size) * 1024)


def _certificate(line: str, clock: int) -> Certificate:
    file, _, encoded = line.partition(" ")
    ends = x509.load_der_x509_certificate(base64.b64decode(encoded)).not_valid_after_utc
    return Certificate(file, ends, (ends - datetime.fromtimestamp(clock, UTC)).days)


def _chain(line: str) -> tuple[str, int, int]:
    chain, there, loaded = line.rsplit(maxsplit=2)
    return chain, int(there), int(loaded)


def _member(lines: Mapping[str, Sequence[str]]) -> Member | None:
    if "etcd-health" not in lines:
        return None
    try:
        [health] = json.loads(lines["etcd-health"][0])
        if not health["health"]:
            return Member(healthy=False, error=health.get("error", "it does not answer"))
        status = json.loads(lines["etcd-status"][0])[0]["Status"]
        members = json.loads(lines["etcd-members"][0])["members"]
    except (ValueError, LookupError):
        # The time that it has for an answer was over, or its files or programs are not what they were.
        return Member(healthy=False, error="etcdctl has no answer there")
    return Member(
        healthy=True,
        version=status["version"],
        leader=status["leader"] == status["header"]["member_id"],
        size=status["dbSize"],
        members=tuple(sorted(member.get("name", "") for member in members)),
    )


def peer_of(protocol: str) -> str | None:
    """The address of the peer that one of BIRD's protocols is with; None for those of another kind."""
    peer = _PEER.match(protocol)
    return ".".join(peer.groups()) if peer else None


def _session(line: str) -> tuple[str, Session] | None:
    """Read a line of `show protocols`: name, protocol, table, state, since, and the session's own words."""
    words = line.split()
    peer = peer_of(words[0])
    if not peer:
        return None
    return peer, Session(" ".join(words[5:]) or words[3], words[4].partition(".")[0])


def _container(document: Mapping[str, Any], network: str) -> Container:
    attached = document["networks"].get(network)
    return Container(
        name=document["name"].removeprefix("/"),
        image=document["image"],
        state=document["state"],
        health=document["health"],
        address=(attached["IPAddress"] or None) if attached else None,
        as_host="host" in document["networks"],
        stack=(document["labels"] or {}).get("calico-lab.stack"),
    )
