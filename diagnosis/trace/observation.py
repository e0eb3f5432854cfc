"""Observation of one flow: sends its first packet from a container while the hosts at both ends watch it."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.hosts import remote
from diagnosis import facts
from diagnosis.facts import HostFacts
from diagnosis.packet_scripts import SEND_SCRIPT, send_variables
from diagnosis.status import STATUS_SCRIPT
from diagnosis.trace import location, path_facts
from diagnosis.trace.flow import Flow, Outcome, parse_outcome
from diagnosis.trace.location import Location
from diagnosis.trace.path_facts import PathFacts
from workspace.outputs import Outputs

WATCH_SCRIPT = Path(__file__).with_name("scripts") / "watch.sh"
WATCH_SECONDS = 20
FACTS_SECONDS = 40
"""How long a host may take for its facts, after the watch."""


@dataclass(frozen=True)
class Observation:
    """Everything that was observed of one flow."""

    stack: str
    outputs: Outputs
    hosts: Mapping[str, HostFacts]
    """Facts by host, of all hosts."""
    source: Location
    target: Location
    flow: Flow
    path: Mapping[str, PathFacts]
    """Facts of the path by host: the source's host, and the target's if it is in the lab."""
    outcome: Outcome

    @property
    def source_facts(self) -> PathFacts:
        """Facts of the path on the source's host."""
        assert self.source.host  # noqa: S101 - a container is on a host
        return self.path[self.source.host]

    @property
    def target_facts(self) -> PathFacts | None:
        """Facts of the path on the target's host; None if the target is outside the lab."""
        return self.path.get(self.target.host or "")

    @property
    def same_host(self) -> bool:
        """Whether source and target are on one host."""
        return self.source.host == self.target.host

    def host_of(self, address: str | None) -> str | None:
        """Return the host that has an address."""
        return next((host for host, its in self.outputs.hosts.items() if its == address), None)

    def ssh(self, host: str, command: str) -> str:
        """Return the command that runs a command on a host."""
        return f"{self.outputs.ssh[host]} {command}"


def observe(outputs: Outputs, stack: str, source: str, target: str, flow: Flow) -> Observation:
    """Find source and target, send the packet, and collect the facts.

    Raises:
        ValueError: Source or target is unknown.
        NoNetworkError: Source or target is not on the lab's network.
    """
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    variables = {host: {"NETWORK": outputs.network, "ENDPOINT": ""} for host in outputs.hosts}
    answers = remote.ask(ssh, STATUS_SCRIPT.read_text(), variables)
    hosts = {host: facts.parse(answer, outputs.network) for host, answer in answers.items()}
    sender = location.find_source(source, outputs, hosts)
    receiver = location.find_target(target, outputs, hosts)
    if sender.address == receiver.address:
        raise ValueError(f"{target}: is {sender.name} itself; what it sends to itself never leaves it")
    path, sent = _send_and_watch(outputs, sender, receiver, flow)
    return Observation(stack, outputs, hosts, sender, receiver, flow, path, parse_outcome(flow, sent))


def _send_and_watch(
    outputs: Outputs, source: Location, target: Location, flow: Flow
) -> tuple[dict[str, PathFacts], remote.Answer]:
    """Send while the hosts at both ends watch. They print their facts after that."""
    assert source.host  # noqa: S101 - a container is on a host
    hosts = list(dict.fromkeys(host for host in (source.host, target.host) if host))
    ready, over = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        watches = {
            host: pool.submit(
                remote.watch,
                outputs.ssh[host],
                WATCH_SCRIPT.read_text(),
                _watch_variables(outputs, source, target, flow, host),
                WATCH_SECONDS + FACTS_SECONDS,
                ready=ready.release,
                over=over,
            )
            for host in hosts
        }
        try:
            for _ in hosts:
                ready.acquire()
            sent = remote.run(
                outputs.ssh[source.host],
                SEND_SCRIPT.read_text(),
                send_variables(target.address, flow.protocol, flow.port, container=source.container or ""),
                WATCH_SECONDS,
            )
        finally:
            over.set()
        answers = {host: watch.result() for host, watch in watches.items()}
    return {host: path_facts.parse(host, answer, target.address) for host, answer in answers.items()}, sent


def _watch_variables(
    outputs: Outputs, source: Location, target: Location, flow: Flow, host: str
) -> dict[str, str]:
    # NAT on the source's host may replace the container's address if the target is not a container.
    nat = [outputs.hosts[source.host]] if source.host and host != source.host and not target.container else []
    sources = [source.address, *nat]
    containers = [one.container for one in (source, target) if one.host == host and one.container]
    capture = flow.capture_filter(source.address, sources, target.address) if outputs.bpf else ""
    return {
        "SOURCE": source.address,
        "SOURCES": ", ".join(sources),
        "TARGET": target.address,
        "MATCH": flow.match,
        "CONNECTION": flow.connection,
        "CAPTURE": capture,
        "CONTAINERS": " ".join(containers),
        "NETWORK": outputs.network,
        "MAX_SECONDS": str(WATCH_SECONDS),
    }
