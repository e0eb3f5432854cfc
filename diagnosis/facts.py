"""Facts of one host: parses the output of `status.sh`. Pure."""

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

# confd names a BIRD protocol after the address of its peer
# (confd/etc/calico/confd/templates/bird.cfg.template).
_PEER = re.compile(r"(?:Mesh|Node|Global)_(\d+)_(\d+)_(\d+)_(\d+)$")

ALARMS = {1: "NOSPACE", 2: "CORRUPT"}
"""etcd's AlarmType, by its number (etcd's rpc.proto)."""


@dataclass(frozen=True)
class Member:
    """An etcd member, as it answers on its own client URL."""

    healthy: bool
    error: str = ""
    version: str = ""
    leader: bool = False
    size: int = 0
    """Size of its database, in bytes."""
    members: tuple[str, ...] = ()
    """Names in its member list."""


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of etcd that a host keeps."""

    every_minutes: int
    """The time from one to the next."""
    count: int
    """How many there are; each was restored for trial."""
    damaged: int
    """How many are not as they were then, and newer than the last good one."""
    time: datetime | None
    """When the last good one was taken, UTC; None without one."""
    age: int
    """Seconds since then, or without one since the host began to take them; by the host's clock."""
    keys: int
    """Number of keys in the last good one."""
    revision: int
    """Its revision."""
    error: str
    """Why the last attempt has failed; empty when it has not."""


@dataclass(frozen=True, order=True)
class Alarm:
    """An alarm of etcd."""

    member: str
    """Name of the member that raised it."""
    kind: str
    """`NOSPACE` or `CORRUPT`."""


@dataclass(frozen=True)
class Session:
    """A BGP session, as BIRD prints it."""

    state: str
    since: str = ""

    @property
    def established(self) -> bool:
        """Whether the peers exchange routes."""
        return self.state == "Established"


@dataclass(frozen=True)
class Container:
    """A container on a host."""

    name: str
    image: str
    state: str
    health: str | None
    address: str | None
    """Its address on the lab's network; None without one."""
    host_network: bool
    """Whether it runs with `--network host`."""
    stack: str | None
    """The Pulumi stack that created it; None for a container of the operator."""

    @property
    def condition(self) -> str:
        """Its health if it runs and has a health check, else its state."""
        return self.health or self.state if self.state == "running" else self.state

    @property
    def healthy(self) -> bool:
        """Whether it runs without a failed health check."""
        # Docker reports "starting" until the first health check has passed or failed.
        return self.condition in ("running", "healthy", "starting")


@dataclass(frozen=True)
class Certificate:
    """A certificate in a file on a host."""

    file: str
    """Its path on the host."""
    ends: datetime
    """End of its validity, UTC."""
    days: int
    """Whole days until it expires, by the host's clock; negative if it has expired."""


@dataclass(frozen=True)
class FileSystem:
    """A file system that the lab writes to."""

    path: str
    """Its mount point."""
    free: int
    """Bytes available to programs."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class HostFacts:
    """The facts from one host."""

    reached: bool
    """Whether it answered over SSH."""
    error: str = ""
    complete: bool = False
    """Whether `status.sh` ran to its end."""
    release: str = ""
    uptime: int = 0
    """Seconds since process 1 started."""
    kernel: str = ""
    """Boot ID of its kernel; host containers on one machine have the same."""
    memory: int | None = None
    """Bytes available to programs; None if unknown."""
    disks: Sequence[FileSystem] = ()
    """Those with the data of the lab and of Docker."""
    certificates: Sequence[Certificate] = ()
    """Certificates of its programs, and of the authorities that they trust."""
    units: Mapping[str, str] = field(default_factory=dict)
    """State by systemd unit: the enabled units of the lab, and Docker."""
    member: Member | None = None
    alarms: Sequence[Alarm] = ()
    """The alarms that its member knows, of all members."""
    snapshots: Snapshots | None = None
    """None if it takes none."""
    felix: str | None = None
    """HTTP status line of Felix's readiness; None without an answer."""
    driver: str | None = None
    """HTTP status line of the Docker driver's readiness; None without an answer."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """BGP session by peer address."""
    network: str | None = None
    """Driver of the lab's Docker network; None if there is no such network."""
    containers: Sequence[Container] = ()
    rules: Mapping[str, int] = field(default_factory=dict)
    """Number of rules in the kernel, by program and chain of the lab (`iptables CALICO-LAB-INPUT`)."""
    loaded: Mapping[str, int] = field(default_factory=dict)
    """Number of rules that were loaded, by program and chain."""
    pending: bool = False
    """Whether a firewall change is not confirmed yet."""

    @property
    def on_network(self) -> bool:
        """Whether Calico is installed."""
        return "calico-lab-bird.service" in self.units

    @property
    def felix_ready(self) -> bool:
        """Whether Felix reports that it is ready."""
        return _is_ok(self.felix)

    @property
    def driver_ready(self) -> bool:
        """Whether the Docker driver reports that it is ready."""
        return _is_ok(self.driver)


def parse(answer: Answer, network: str) -> HostFacts:
    """Parse a host's answer to `status.sh`. An incomplete answer gives the facts that it has."""
    if not answer.reached:
        return HostFacts(reached=False, error=answer.error)
    try:
        return _facts(answer, network)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return HostFacts(reached=True, error=str(error))


def values_by_name(text: str) -> dict[str, list[str]]:
    """Parse lines of `<name> <value>`. A name without a line has no values."""
    lines: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        lines[name].append(value.strip())
    return lines


def _facts(answer: Answer, network: str) -> HostFacts:
    lines = values_by_name(answer.text)
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
        alarms=_alarms(lines),
        snapshots=_snapshots(lines),
        felix=_first(lines["felix"]),
        driver=_first(lines["driver"]),
        sessions=dict(session for line in lines["bgp"] if (session := _session(line))),
        network=_first(lines["network"]),
        containers=[_container(json.loads(line), network) for line in lines["container"]],
        rules={chain: present for chain, present, _ in chains},
        loaded={chain: loaded for chain, _, loaded in chains},
        pending="firewall" in lines,
    )


def _is_ok(status_line: str | None) -> bool:
    return status_line is not None and " 200 " in f"{status_line} "


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
    chain, present, loaded = line.rsplit(maxsplit=2)
    return chain, int(present), int(loaded)


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
        # etcdctl timed out, or a program or file of the lab is missing.
        return Member(healthy=False, error="etcdctl has no answer there")
    return Member(
        healthy=True,
        version=status["version"],
        leader=status["leader"] == status["header"]["member_id"],
        size=status["dbSize"],
        members=tuple(sorted(member.get("name", "") for member in members)),
    )


def _alarms(lines: Mapping[str, Sequence[str]]) -> list[Alarm]:
    said = _first(lines["etcd-alarms"])
    raised = json.loads(said).get("alarms", []) if said else []
    listed = _first(lines["etcd-members"]) if raised else None
    members = json.loads(listed)["members"] if listed else []
    names = {member["ID"]: member.get("name", "") for member in members}
    return [
        Alarm(
            names.get(alarm["memberID"]) or f"{alarm['memberID']:x}",
            ALARMS.get(alarm.get("alarm", 0), f"alarm {alarm.get('alarm', 0)}"),
        )
        for alarm in raised
    ]


def _snapshots(lines: Mapping[str, Sequence[str]]) -> Snapshots | None:
    said = _first(lines["snapshots"])
    if not said:
        return None
    document = json.loads(said)
    last = document["last"] or {}
    time = datetime.fromisoformat(last["time"]) if last else None
    clock = int(lines["clock"][0])
    return Snapshots(
        every_minutes=document["everyMinutes"],
        count=document["count"],
        damaged=document["damaged"],
        time=time,
        age=clock - (int(time.timestamp()) if time else document["since"] or clock),
        keys=last.get("keys", 0),
        revision=last.get("revision", 0),
        error=document["error"] or "",
    )


def peer_of(protocol: str) -> str | None:
    """Return the peer address in the name of a BIRD protocol; None if it is not a BGP session of Calico."""
    peer = _PEER.match(protocol)
    return ".".join(peer.groups()) if peer else None


def _session(line: str) -> tuple[str, Session] | None:
    """Parse a line of `show protocols`: name, protocol, table, state, since, and the BGP state."""
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
        host_network="host" in document["networks"],
        stack=(document["labels"] or {}).get("calico-lab.stack"),
    )
