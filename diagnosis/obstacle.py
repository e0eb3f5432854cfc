"""What keeps one host from a TCP port of another: the kernels at both ends name the rule, whosever it is.

A connection fails where its first packet is stopped, and as well where only the answers to it are. So the way
there is traced on the target and the way back on the source, while the source tries. What somebody typed by
hand is found like what a policy says.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from components.firewall.rules.evaluate import Packet
from components.hosts.remote import Answer, run
from diagnosis import packet_trace as trace
from diagnosis.explanation import Step, end_of, read_step, read_trace, trace_lines

ANSWER_SECONDS = trace.SECONDS + 20
# Several hosts may miss the same one at the same moment, and a host takes one trace at a time.
_tracing = threading.Lock()


@dataclass(frozen=True)
class End:
    """One end of a connection."""

    host: str
    address: str
    ssh: str
    """The ssh command that reaches it."""


def obstacle(source: End, target: End, port: int) -> str | None:
    """Say what keeps the source from a TCP port of the target, and what to do next.

    Returns:
        A sentence; None where the port opens.
    """
    where = {"DESTINATION": target.address, "PORT": str(port)}
    tried = run(source.ssh, trace.TRY.read_text(), where)
    outcome = tried.text.strip()
    if tried.status == 0 and outcome == "open":
        return None
    what = f"{source.host} cannot open tcp/{port} on {target.host} ({target.address})"
    if tried.status:
        return f"{what}: {source.host} could not be asked: {tried.error}"
    packet = Packet(ip_address(source.address), ip_address(target.address), "tcp", port)
    with _tracing:
        there, back = _traces(source, target, packet)
    return f"{what}: {outcome}; {judge(source.host, target.host, port, there, back)}"


def _traces(source: End, target: End, packet: Packet) -> tuple[Answer, Answer]:
    script = trace.TRACE.read_text()
    sent = trace.send_variables(packet)
    with ThreadPoolExecutor(max_workers=3) as pool:
        there = pool.submit(run, target.ssh, script, trace.trace_variables(packet), ANSWER_SECONDS)
        back = pool.submit(run, source.ssh, script, trace.answer_variables(packet), ANSWER_SECONDS)
        pool.submit(run, source.ssh, trace.SEND.read_text(), sent, ANSWER_SECONDS)
        return there.result(), back.result()


def judge(source: str, target: str, port: int, there: Answer, back: Answer) -> str:
    """Say where a connection is stopped, by the traces of its first packet and of the answers to it."""
    for host, traced in ((target, there), (source, back)):
        if traced.status:
            return (
                f"{host} cannot say why: {traced.error}; next: iptables -S INPUT on {source} and on {target}"
            )
    way, way_back = read_trace(there.text), read_trace(back.text)
    if stop := end_of(way):
        return f"{target} stops it: {_advice(target, stop)}"
    if stop := end_of(way_back):
        return f"it gets to {target}, and {source} stops the answer: {_advice(source, stop)}"
    if not _came(there.text):
        return (
            f"nothing of it arrives on {target}; next: iptables -S OUTPUT on {source}, and what lies between"
        )
    if not _came(back.text):
        return f"{target} lets it in, and no answer comes; next: iptables -S OUTPUT on {target}"
    return f"no rule stops it; next: on {target}: ss -ltnp sport = :{port}"


def _came(traced: str) -> bool:
    """Whether a packet came at all; on a host without any rule it meets none but the trace's own."""
    return any(read_step(line) for line in trace_lines(traced))


def _advice(host: str, stop: Step) -> str:
    if stop.path:
        return f"{stop.path} says so ({stop.rule}); next: change that policy in the config"
    if not stop.rule:
        return (
            f"the policy of chain {stop.chain} (table {stop.table}) is {stop.verdict}; "
            f"next: on {host}: iptables -t {stop.table} -S {stop.chain}"
        )
    # xtables-monitor(8) puts the family in front of the rule.
    rule = stop.rule.removeprefix("-4 ").removeprefix("-6 ")
    program = "ip6tables" if stop.rule.startswith("-6 ") else "iptables"
    if f" -A {stop.chain} " in f" {rule}" and stop.chain.isupper():
        return f"rule {rule}; next: on {host}: {program} {rule.replace('-A ', '-D ', 1)}"
    return f"rule {rule}; next: on {host}: {program} -t {stop.table} -S {stop.chain}"
