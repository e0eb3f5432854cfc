"""Why an etcd member is not healthy: a sentence with the next step, from what its host says.

The order of the causes is that of their certainty. A full disk and lost data explain everything. The log
names trouble that lasts. A process that is stopped does not answer. A refused certificate, a clock or a slow
disk may be a consequence.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.hosts.remote import Answer, ask
from diagnosis.obstacle import SshHost, obstacle
from workspace.outputs import Outputs

SCRIPT = Path(__file__).with_name("scripts") / "member.sh"
SECONDS = 20
LEAST_FREE_KIB = 64 * 1024
"""etcd allocates 64 MB for each file of its log before it writes to it."""
SLOW_FSYNC_SECONDS = 0.1
"""etcd's heartbeat interval. A disk that takes longer loses elections; etcd advises a tenth of it."""
UNIT = "calico-lab-etcd"
REJOIN = "{up} --replace '**::etcd-health' --target '**::etcd-health', with which it joins again"
"""Only a change of the members has the gate run by itself."""
_EMPTY = "on {host}: systemctl stop {unit} && rm -rf /var/lib/calico-lab/etcd; then " + REJOIN
_START = "on {host}: systemctl start {unit}; journalctl -n 20 -u {unit}"
LASTING = {
    "cluster": ("it belongs to another etcd cluster than its peers", _EMPTY),
    "removed": ("the other members have removed it from their list", REJOIN),
    "space": ("its disk is full", "on {host}: df -h /var/lib; free some space; systemctl restart {unit}"),
}
"""What a kind of line in etcd's log means, and the next step."""
PASSING = {
    "certificate": (
        "a certificate is refused: {line}",
        "{up}, which renews a certificate that has ended; else compare /etc/calico-lab/pki on {host} with "
        "that of its peers",
    ),
    "clock": (
        "its clock is apart from a peer's: {line}",
        "on {host}: timedatectl set-ntp true, or whatever keeps its time",
    ),
}
"""The same, for a member that nobody has stopped."""


def causes(unhealthy: Mapping[str, str], outputs: Outputs, up: str) -> dict[str, tuple[str, str]]:
    """Ask the hosts of unhealthy members why; where they do not know, trace the connections to their peers.

    Args:
        unhealthy: What each of these members has answered, by host.
        outputs: The outputs of the lab.
        up: The command that applies the stack.

    Returns:
        The cause and the next step by host; what the member has answered where nothing is known.
    """
    answers = ask({host: outputs.ssh[host] for host in unhealthy}, SCRIPT.read_text(), {}, SECONDS)
    found = {}
    for host, answer in answers.items():
        facts = parse(answer)
        known = cause(host, facts, up)
        if known is None and facts["peer-port"]:
            known = _separated(host, int(facts["peer-port"][0]), outputs)
        found[host] = known or (unhealthy[host], f"on {host}: journalctl -n 20 -u {UNIT}")
    return found


def parse(answer: Answer) -> Mapping[str, list[str]]:
    """What member.sh has printed, by name; empty if it has failed."""
    facts: defaultdict[str, list[str]] = defaultdict(list)
    for line in answer.text.splitlines():
        name, _, value = line.partition(" ")
        facts[name].append(value)
    return facts


def cause(host: str, facts: Mapping[str, list[str]], up: str) -> tuple[str, str] | None:
    """Why a member is not healthy, and the next step.

    Args:
        host: Its host.
        facts: What the host says.
        up: The command that applies the stack.

    Returns:
        None if its host does not know.
    """
    return next(_causes(facts, {"host": host, "unit": UNIT, "up": up}), None)


def _causes(facts: Mapping[str, list[str]], words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The causes that the host knows, the most certain first."""
    free = int(facts["free-kib"][0]) if facts["free-kib"] else LEAST_FREE_KIB
    if free < LEAST_FREE_KIB:
        what = f"its disk has {free // 1024} MiB left, and etcd needs {LEAST_FREE_KIB // 1024}"
        yield what, LASTING["space"][1].format(**words)
    state = facts["unit"][0] if facts["unit"] else ""
    if state and not facts["data"]:
        yield "its data are lost", REJOIN.format(**words)
    yield from _logged(LASTING, facts, words)
    stopped = (f"its process does not run ({state})", _START.format(**words))
    if state == "inactive":
        yield stopped
    yield from _logged(PASSING, facts, words)
    if state == "failed":
        yield stopped
    slow = float(facts["fsync-p99"][0]) if facts["fsync-p99"] else 0
    if slow > SLOW_FSYNC_SECONDS:
        what = f"its disk is slow: one write of a hundred takes {slow:g} s, and etcd's heartbeat is 0.1 s"
        yield what, "on {host}: iostat -x 1; a faster disk, or less that writes on it".format(**words)


def _logged(
    kinds: Mapping[str, tuple[str, str]], facts: Mapping[str, list[str]], words: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The kinds of lines that the log has."""
    for kind, (what, then) in kinds.items():
        if lines := facts[f"log-{kind}"]:
            yield what.format(line=_message(lines[0])), then.format(**words)


def _message(line: str) -> str:
    """The message of a line in etcd's log, without its time and place."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    return ": ".join(str(document[key]) for key in ("msg", "error") if document.get(key))


def _separated(host: str, port: int, outputs: Outputs) -> tuple[str, str] | None:
    """The rule that keeps a member from its peers."""
    ends = {
        name: SshHost(name, address, outputs.ssh[name])
        for name, address in outputs.hosts.items()
        if outputs.etcd_endpoint(name)
    }
    pairs = [pair for peer in ends if peer != host for pair in ((host, peer), (peer, host))]
    # One after the other, because a trace takes seconds, and one rule is enough to go on.
    said = (obstacle(ends[source], ends[target], port) for source, target in pairs)
    first = next((sentence for sentence in said if sentence), None)
    if first is None:
        return None
    what, _, then = first.partition("; next: ")
    return what, then
