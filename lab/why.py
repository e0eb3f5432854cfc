"""What becomes of a packet, and which rule decides: by the config, and by what the kernel does with one.

The config's answer is for the config as it stands in the file, applied or not. The host's own answer is a
trace: the first packet of the flow is sent, from the machine that the question names, and the host says which
rules it meets.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from components.firewall.rules.lab_hosts import lab_hosts
from components.firewall.rules.resolve import OPERATOR, resolve
from components.hosts import remote
from config.loading import load
from config.model import LabConfig
from diagnosis import packet_trace as trace
from diagnosis.explanation import Counter, Explanation, Step, end_of, explain, read_counters, read_trace
from workspace.outputs import PROJECT, Outputs, StackError

COUNTERS = PROJECT / "diagnosis" / "scripts" / "counters.sh"
# How much longer than the trace a host may need, its answer included.
GRACE_SECONDS = 20
# The operator is here. bash takes the script from standard input and leaves its argument alone.
_HERE_BY_SHELL = "bash -s --"


@dataclass(frozen=True)
class Live:
    """What a host says of the packet."""

    host: str
    steps: list[Step]
    """The rules that it met; none where no packet came."""
    counters: list[Counter]
    """Those of the rule that decides by the config."""
    error: str = ""
    """Why the host has no answer."""

    @property
    def end(self) -> Step | None:
        """The rule that ended the packet's way; None where it came through."""
        return end_of(self.steps)

    @property
    def verdict(self) -> str | None:
        """`accept` or `drop` (what a reject is to the packet itself); None without a packet."""
        if not self.steps:
            return None
        return "drop" if self.end else "accept"


def read_config(stack: str, folder: Path = PROJECT) -> LabConfig:
    """Read a stack's config as the program does.

    Raises:
        StackError: There is no such file, or it is no YAML.
        ConfigError: The config is wrong.
    """
    path = folder / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise StackError(f"{path.name} is not in {folder}; next: pulumi stack ls") from None
    except yaml.YAMLError as error:
        raise StackError(f"{path.name} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise StackError(f"{path.name} holds no keys; next: see docs/config.md")
    return load(document.get("config") or {}, path.name)


def answer(
    config: LabConfig, source: str, destination: str, flow: str, *, published: bool = False
) -> Explanation:
    """Explain by the config.

    Args:
        config: The lab's config.
        source: A machine of the lab, `operator`, or an address.
        destination: A host.
        flow: As `tcp/2380`.
        published: Whether it goes to a container's published port.

    Raises:
        ValueError: When one of these cannot be understood.
    """
    lab = lab_hosts(config.hosts, config.firewall)
    policies = resolve(config.firewall, lab)
    return explain(policies, lab, source, destination, flow, published=published)


def look(explanation: Explanation, outputs: Outputs, source: str, host: str) -> Live:
    """Trace the packet on the host that it goes to, while its source sends it.

    Raises:
        StackError: The host is not in the stack.
        ValueError: The packet cannot come to the host.
    """
    packet = explanation.packet
    if host not in outputs.ssh:
        raise StackError(f"{host} is in the config, but not in the stack; next: pulumi up")
    if packet.source.version != packet.destination.version:
        raise ValueError(
            f"{source}: {packet.source} cannot send to {packet.destination}, the address of {host}"
        )
    sender = _HERE_BY_SHELL if source == OPERATOR else outputs.ssh.get(source)
    script = f"{trace.TRACE.read_text()}\n{COUNTERS.read_text()}"
    seconds = trace.SECONDS + GRACE_SECONDS
    with ThreadPoolExecutor(max_workers=2) as pool:
        traced = pool.submit(remote.run, outputs.ssh[host], script, trace.trace_variables(packet), seconds)
        if sender and (variables := trace.send_variables(packet)):
            sent = pool.submit(remote.run, sender, trace.SEND.read_text(), variables, seconds).result()
        else:
            sent = remote.Answer(0, "", "")
    live = read(host, explanation, traced.result())
    if sent.status and traced.result().status == 0 and not live.steps:
        return replace(live, error=f"{source} sent nothing: {sent.error or f'exit status {sent.status}'}")
    return live


def read(host: str, explanation: Explanation, said: remote.Answer) -> Live:
    """Read what the host printed."""
    if said.status != 0:
        return Live(host, [], [], said.error or f"exit status {said.status}")
    steps = read_trace(said.text)
    path = explanation.decision.path
    counters = [counter for counter in read_counters(said.text) if path and counter.path == path]
    program = "iptables" if explanation.packet.family == "ipv4" else "ip6tables"
    counters = [counter for counter in counters if counter.program == program]
    packet = explanation.packet
    lost = f"no first packet of it came from {packet.source} within {trace.SECONDS} s"
    return Live(host, steps, counters, "" if steps else lost)


def finding(explanation: Explanation, live: Live, stack: str) -> str | None:
    """Say what is wrong where the host has no answer, or another than the config, and what to do next."""
    wanted = "accept" if explanation.decision.verdict == "accept" else "drop"
    if live.error:
        return (
            f"{live.host}: trace: {live.error}; "
            f"next: see that the source can send, and lab --stack {stack} status"
        )
    if wanted == "accept" and live.end and live.end.path is None:
        return (
            f"{live.host}: the lab's rules let it through, but another program's rule does not; "
            f"next: iptables -S {live.end.chain} on {live.host}"
        )
    if live.verdict != wanted and not _is_in_doubt(explanation, live):
        return (
            f"{live.host}: the kernel does not do what the config says; "
            f"next: lab --stack {stack} drift, and pulumi preview --diff --stack {stack}"
        )
    return None


def _is_in_doubt(explanation: Explanation, live: Live) -> bool:
    """Whether it depends on what is not known of the packet, and the host knows."""
    paths = {doubt.rule.path for doubt in explanation.doubts}
    return explanation.decision.path in paths or any(step.path in paths for step in live.steps)


def text(explanation: Explanation, live: Live | None, problem: str | None) -> Iterator[str]:
    """The answer for people, a line at a time."""
    yield str(explanation)
    yield from (f"  rule      {line}" for line in explanation.lines)
    yield from (f"  depends   on {doubt}" for doubt in explanation.doubts)
    if live is None:
        return
    for counter in live.counters:
        yield f"  counters  {counter.packets} packets, {counter.bytes} bytes: {counter.rule}"
    if live.steps:
        yield f"On {live.host} the kernel {'stops it' if live.end else 'lets it through'}:"
    for step in live.steps:
        path = f" ({step.path})" if step.path else ""
        yield f"  {step.table:<8}{step.chain:<22}{step.verdict:<9}{step.rule or 'the end of the chain'}{path}"
    if problem:
        yield problem


def document(explanation: Explanation, live: Live | None, problem: str | None) -> dict[str, Any]:
    """The answer for machines."""
    packet, decision = explanation.packet, explanation.decision
    told: dict[str, Any] = {
        "packet": {
            "source": str(packet.source),
            "destination": str(packet.destination),
            "protocol": packet.protocol,
            "port": packet.port,
            "icmpType": packet.icmp_type,
            "published": packet.published,
        },
        "verdict": decision.verdict,
        "reason": decision.reason,
        "path": decision.path,
        "rule": list(explanation.lines),
        "depends": [{"on": doubt.field, "path": doubt.rule.path} for doubt in explanation.doubts],
    }
    if live:
        told["live"] = {
            "host": live.host,
            "verdict": live.verdict,
            "steps": [{**asdict(step), "path": step.path} for step in live.steps],
            "counters": [asdict(counter) for counter in live.counters],
            "finding": problem,
        }
    return told
