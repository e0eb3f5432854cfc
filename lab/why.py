"""`lab why`: explains by the config which firewall rule decides on a packet, and asks the kernel too.

The explanation is for the config in the file, applied or not. With `--live`, the source sends the packet, and
the destination's kernel names the rules that it meets.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from components.firewall.rules.lab_hosts import lab_hosts
from components.firewall.rules.resolve import OPERATOR, resolve
from components.hosts import remote
from config.loading import ConfigError
from config.model import LabConfig
from diagnosis import packet_scripts as scripts
from diagnosis.explanation import Explanation, explain
from diagnosis.xtables import Counter, Step, dropping_step, parse_counters, parse_trace
from lab import config
from lab.completion import complete_host, complete_sender
from lab.verb import json_option, print_json, print_lines, read_outputs, usage_errors
from workspace.outputs import Outputs, StackError

# Takes the place of an ssh command, to run a script on the controller: bash reads the script from standard
# input and ignores the argument that ssh would run.
CONTROLLER_SHELL = "bash -s --"


@click.command("why")
@click.argument("source", shell_complete=complete_sender)
@click.argument("destination", shell_complete=complete_host)
@click.argument("flow", metavar="PROTO/PORT")
@click.option("--published", is_flag=True, help="The packet goes to a container's published port.")
@click.option("--live", is_flag=True, help="Send the packet, and trace it in the host's kernel.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    source: str,
    destination: str,
    flow: str,
    published: bool,
    live: bool,
    as_json: bool,
) -> None:
    """Explain by the firewall policies in the config what happens to the first packet of a flow.

    SOURCE is a host of the lab, `visitor`, `operator` or an address; DESTINATION is a host; PROTO/PORT is
    like tcp/2380, icmp or icmp/echo-request.

    With --live, SOURCE opens such a connection once a second and sends nothing on it (by UDP an empty line),
    and DESTINATION lists every rule that one of the packets meets, and the deciding rule's counters. If
    SOURCE is just an address, or the packet neither TCP, UDP nor an echo-request, one has to come by itself.
    For these five seconds the host's nftables has a table calico-lab-trace: it marks the packets, has no
    verdict, and goes when the trace ends, also when the SSH session is cut. Exit 1 when the host has no
    answer, or another than the config.
    """
    with usage_errors(ConfigError):
        try:
            explanation = answer(
                config.read_config(context.obj), source, destination, flow, published=published
            )
            seen = look(explanation, read_outputs(context.obj), source, destination) if live else None
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    problem = finding(explanation, seen, context.obj) if seen else None
    if as_json:
        print_json(document(explanation, seen, problem))
    else:
        print_lines(text(explanation, seen, problem))
    context.exit(1 if problem else 0)


@dataclass(frozen=True)
class Live:
    """A host's trace of the packet."""

    host: str
    steps: list[Step]
    """The rules that the packet met; empty if no packet came."""
    counters: list[Counter]
    """Counters of the rule that decides by the config."""
    error: str = ""
    """Why there is no trace."""

    @property
    def dropped_by(self) -> Step | None:
        """The step that dropped the packet; None if none did."""
        return dropping_step(self.steps)

    @property
    def verdict(self) -> str | None:
        """`accept`, or `drop` (for a reject too, because the packet is dropped); None without a packet."""
        if not self.steps:
            return None
        return "drop" if self.dropped_by else "accept"


def answer(
    lab_config: LabConfig, source: str, destination: str, flow: str, *, published: bool = False
) -> Explanation:
    """Explain by the config.

    Args:
        lab_config: The lab's config.
        source: A host of the lab, `visitor`, `operator`, or an address.
        destination: A host.
        flow: As `tcp/2380`.
        published: Whether the packet goes to a container's published port.

    Raises:
        ValueError: An argument is invalid.
    """
    lab = lab_hosts(lab_config.hosts, lab_config.firewall)
    policies = resolve(lab_config.firewall, lab)
    return explain(policies, lab, source, destination, flow, published=published)


def look(explanation: Explanation, outputs: Outputs, source: str, host: str) -> Live:
    """Trace the packet on its destination, while the source sends it.

    Raises:
        StackError: The destination is not in the stack.
        ValueError: Source and destination have different address families.
    """
    packet = explanation.packet
    if host not in outputs.ssh:
        raise StackError(f"{host} is in the config, but not in the stack; next: pulumi up")
    if packet.source.version != packet.destination.version:
        raise ValueError(
            f"{source}: {packet.source} cannot send to {packet.destination}, the address of {host}"
        )
    sender = CONTROLLER_SHELL if source == OPERATOR else outputs.ssh.get(source)
    script = f"{scripts.TRACE_SCRIPT.read_text()}\n{scripts.COUNTERS_SCRIPT.read_text()}"
    timeout = scripts.TIMEOUT_SECONDS
    with ThreadPoolExecutor(max_workers=2) as pool:
        traced = pool.submit(remote.run, outputs.ssh[host], script, scripts.trace_variables(packet), timeout)
        if sender and (variables := scripts.repeated_send_variables(packet)):
            sent = pool.submit(
                remote.run, sender, scripts.SEND_SCRIPT.read_text(), variables, timeout
            ).result()
        else:
            sent = remote.Answer(0, "", "")
    live = parse(host, explanation, traced.result())
    if sent.status and traced.result().status == 0 and not live.steps:
        return replace(live, error=f"{source} sent nothing: {sent.error or f'exit status {sent.status}'}")
    return live


def parse(host: str, explanation: Explanation, traced: remote.Answer) -> Live:
    """Parse the output of `trace.sh` and `counters.sh`."""
    if traced.status != 0:
        return Live(host, [], [], traced.error or f"exit status {traced.status}")
    steps = parse_trace(traced.text)
    packet, path = explanation.packet, explanation.decision.path
    program = "iptables" if packet.family == "ipv4" else "ip6tables"
    counters = [
        counter
        for counter in parse_counters(traced.text)
        if path and (counter.path, counter.program) == (path, program)
    ]
    nothing = f"no first packet of it came from {packet.source} within {scripts.TRACE_SECONDS} s"
    return Live(host, steps, counters, "" if steps else nothing)


def finding(explanation: Explanation, live: Live, stack: str) -> str | None:
    """Say what is wrong, and what to do next; None if the kernel does what the config says."""
    wanted = "accept" if explanation.decision.verdict == "accept" else "drop"
    if live.error:
        return (
            f"{live.host}: trace: {live.error}; "
            f"next: see that the source can send, and lab --stack {stack} status"
        )
    if wanted == "accept" and live.dropped_by and live.dropped_by.path is None:
        return (
            f"{live.host}: the lab's rules let it through, but another program's rule does not; "
            f"next: iptables -S {live.dropped_by.chain} on {live.host}"
        )
    if live.verdict != wanted and not _is_in_doubt(explanation, live):
        return (
            f"{live.host}: the kernel does not do what the config says; "
            f"next: lab --stack {stack} drift, and pulumi preview --diff --stack {stack}"
        )
    return None


def _is_in_doubt(explanation: Explanation, live: Live) -> bool:
    """Whether the verdict depends on a field of the packet that only the host knows."""
    paths = {doubt.rule.path for doubt in explanation.doubts}
    return explanation.decision.path in paths or any(step.path in paths for step in live.steps)


def text(explanation: Explanation, live: Live | None, problem: str | None) -> Iterator[str]:
    """Format the explanation as text."""
    yield str(explanation)
    yield from (f"  rule      {line}" for line in explanation.lines)
    yield from (f"  depends   on {doubt}" for doubt in explanation.doubts)
    if live is None:
        return
    for counter in live.counters:
        yield f"  counters  {counter.packets} packets, {counter.bytes} bytes: {counter.rule}"
    if live.steps:
        yield f"On {live.host} the kernel {'stops it' if live.dropped_by else 'lets it through'}:"
    for step in live.steps:
        path = f" ({step.path})" if step.path else ""
        yield f"  {step.table:<8}{step.chain:<22}{step.verdict:<9}{step.rule or 'the end of the chain'}{path}"
    if problem:
        yield problem


def document(explanation: Explanation, live: Live | None, problem: str | None) -> dict[str, Any]:
    """Return the explanation for programs."""
    packet, decision = explanation.packet, explanation.decision
    found: dict[str, Any] = {
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
        found["live"] = {
            "host": live.host,
            "verdict": live.verdict,
            "steps": [{**asdict(step), "path": step.path} for step in live.steps],
            "counters": [asdict(counter) for counter in live.counters],
            "finding": problem,
        }
    return found
