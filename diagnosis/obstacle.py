"""Finds what blocks a TCP connection from one host to another: traces on both hosts name the rule.

A connection fails if its first packet is dropped, or if only the answers are. So the target traces the packet
and the source traces the answers, while the source connects. A rule that somebody typed by hand is found like
the rule of a policy.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.evaluate import Packet
from components.hosts.remote import Answer, run
from diagnosis import packet_scripts as scripts
from diagnosis.tcp_probe import PROBE_SCRIPT, parse_probes, probe_variables
from diagnosis.xtables import Step, dropping_step, parse_step, parse_trace, split_lines

PROBE_SECONDS = 3
# A host runs one trace at a time, and several hosts may miss the same host at the same moment.
_tracing = threading.Lock()


@dataclass(frozen=True)
class SshHost:
    """A host, its address, and the ssh command that reaches it."""

    host: str
    address: str
    ssh: str


def obstacle(source: SshHost, target: SshHost, port: int) -> str | None:
    """Say what blocks connections from the source to a TCP port of the target, and what to do next.

    Returns:
        A sentence; None if the port is open.
    """
    variables = probe_variables([f"{target.address}:{port}"], PROBE_SECONDS, until="answered")
    answer = run(source.ssh, PROBE_SCRIPT.read_text(), variables)
    what = f"{source.host} cannot open tcp/{port} on {target.host} ({target.address})"
    if answer.status:
        return f"{what}: {source.host} could not be asked: {answer.error}"
    [probe] = parse_probes(answer)
    if probe.reply == "open":
        return None
    packet = Packet(ip_address(source.address), ip_address(target.address), "tcp", port)
    with _tracing:
        request, reply = _traces(source, target, packet)
    failure = "silent" if probe.reply == "silent" else "refused"
    return f"{what}: {failure}; {judge(source.host, target.host, port, request, reply)}"


def _traces(source: SshHost, target: SshHost, packet: Packet) -> tuple[Answer, Answer]:
    script, timeout = scripts.TRACE_SCRIPT.read_text(), scripts.TIMEOUT_SECONDS
    with ThreadPoolExecutor(max_workers=3) as pool:
        request = pool.submit(run, target.ssh, script, scripts.trace_variables(packet), timeout)
        reply = pool.submit(run, source.ssh, script, scripts.answer_variables(packet), timeout)
        pool.submit(
            run, source.ssh, scripts.SEND_SCRIPT.read_text(), scripts.repeated_send_variables(packet), timeout
        )
        return request.result(), reply.result()


def judge(source: str, target: str, port: int, request: Answer, reply: Answer) -> str:
    """Say where a connection is blocked.

    Args:
        source: The host that connects.
        target: The host that it connects to.
        port: The TCP port.
        request: The trace of the first packet, from the target.
        reply: The trace of the answers, from the source.
    """
    for host, traced in ((target, request), (source, reply)):
        if traced.status:
            return (
                f"{host} cannot say why: {traced.error}; next: iptables -S INPUT on {source} and on {target}"
            )
    if step := dropping_step(parse_trace(request.text)):
        return f"{target} stops it: {_advice(target, step)}"
    if step := dropping_step(parse_trace(reply.text)):
        return f"it gets to {target}, and {source} stops the answer: {_advice(source, step)}"
    if not _arrived(request.text):
        return (
            f"nothing of it arrives on {target}; next: iptables -S OUTPUT on {source}, and what lies between"
        )
    if not _arrived(reply.text):
        return f"{target} lets it in, and no answer comes; next: iptables -S OUTPUT on {target}"
    return f"no rule stops it; next: on {target}: ss -ltnp sport = :{port}"


def _arrived(traced: str) -> bool:
    """Whether a packet was traced. On a host without rules it meets only those of the trace itself."""
    return any(parse_step(line) for line in split_lines(traced))


def _advice(host: str, step: Step) -> str:
    if step.path:
        return f"{step.path} says so ({step.rule}); next: change that policy in the config"
    if not step.rule:
        return (
            f"the policy of chain {step.chain} (table {step.table}) is {step.verdict}; "
            f"next: on {host}: iptables -t {step.table} -S {step.chain}"
        )
    # The family is before the rule (xtables.parse_step).
    rule = step.rule.removeprefix("-4 ").removeprefix("-6 ")
    program = "ip6tables" if step.rule.startswith("-6 ") else "iptables"
    if f" -A {step.chain} " in f" {rule}" and step.chain.isupper():
        return f"rule {rule}; next: on {host}: {program} {rule.replace('-A ', '-D ', 1)}"
    return f"rule {rule}; next: on {host}: {program} -t {step.table} -S {step.chain}"
