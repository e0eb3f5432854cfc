"""Verbs and traces with a real kernel: a host and a visitor in network namespaces."""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from components.firewall.rules.compile import compile_policies, restore_document
from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.resolve import resolve
from components.hosts import remote
from diagnosis import packet_scripts as scripts
from diagnosis.explanation import Explanation, explain
from diagnosis.obstacle import SshHost, obstacle
from diagnosis.tcp_probe import PROBE_SCRIPT, probe_variables
from diagnosis.trace import path_facts
from diagnosis.trace.flow import Flow, parse_flow
from diagnosis.trace.observation import WATCH_SCRIPT
from lab import drift, why
from lab.doctor import candidate
from tests.live.waiting import eventually
from tests.unit.diagnosis.lab_cases import outputs
from tests.unit.firewall.firewall_cases import LAB
from workspace.outputs import Outputs

HOST = """
mount -t tmpfs none /run
setpriv --pdeathsig KILL unshare --net --mount sh -euc 'mount -t tmpfs none /run; exec sleep 600' >/dev/null &
visitor=$!
until [ "$(cat "/proc/$visitor/comm")" = sleep ]; do sleep 0.05; done
# ICMP errors have a rate limit, and the tests follow each other quickly.
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
ip link set lo up
ip link add eth0 type veth peer name eth0 netns "$visitor"
ip address add 172.16.6.44/24 dev eth0
ip link set eth0 up
nsenter --target "$visitor" --net ip address add 172.16.6.66/24 dev eth0
nsenter --target "$visitor" --net ip link set eth0 up
echo "$visitor"
exec sleep 600
"""
RULES = [
    {"action": "reject", "source": "visitor", "protocol": "tcp", "ports": 23},
    {"action": "accept", "source": "visitor", "protocol": "udp", "ports": 53},
]
POLICIES = resolve(
    FirewallConfig.model_validate({"policies": {"p": {"hosts": ["a0"], "rules": RULES}}}),
    LAB,
)

WATCH = {
    "SOURCE": "172.16.6.66",
    "SOURCES": "172.16.6.66",
    "TARGET": "172.16.6.44",
    "MATCH": Flow("tcp", 81).match,
    "CONNECTION": Flow("tcp", 81).connection,
    "CAPTURE": "",
    "CONTAINERS": "",
    "NETWORK": "netv",
    "MAX_SECONDS": "20",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Outputs]:
    """The outputs of a lab with one host, which has the policy loaded, and a visitor."""
    user = [] if os.geteuid() == 0 else ["--user"]
    mapped = [*user, "--map-root-user"] if user else []
    command = ["unshare", *mapped, "--net", "--mount", "sh", "-euc", HOST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        visitor = int(process.stdout.readline())
        enter = ["nsenter", *user, *(["--preserve-credentials"] if user else []), "--net", "--mount"]
        ssh = {
            "a0": " ".join([*enter, "--target", str(process.pid), "sh", "-c"]),
            "visitor": " ".join([*enter, "--target", str(visitor), "sh", "-c"]),
        }
        compiled = compile_policies(POLICIES["a0"])
        document = restore_document(compiled.ipv4, compiled.policies)
        loaded = remote.run(
            ssh["a0"],
            f"iptables-restore --noflush <<'END'\n{document}END\niptables -I INPUT -j CALICO-LAB-INPUT",
        )
        try:
            assert loaded.status == 0, loaded.error
            yield replace(outputs(), hosts={"a0": "172.16.6.44"}, ssh=ssh)
        finally:
            process.kill()


def ask(lab: Outputs, source: str, flow: str) -> tuple[Explanation, why.Live]:
    explanation = explain(POLICIES, LAB, source, "a0", flow)
    return explanation, why.look(explanation, lab, source, "a0")


def ends(lab: Outputs) -> tuple[SshHost, SshHost]:
    return (
        SshHost("visitor", "172.16.6.66", lab.ssh["visitor"]),
        SshHost("a0", "172.16.6.44", lab.ssh["a0"]),
    )


def no_obstacle(source: SshHost, target: SshHost) -> None:
    assert obstacle(source, target, 84) is None


def check(lab: Outputs, addresses: str, targets: list[str]) -> candidate.Candidate:
    """What `lab doctor` finds out about the visitor."""
    variables = probe_variables(targets, candidate.PROBE_SECONDS, until="answered")
    probes = remote.run(lab.ssh["visitor"], PROBE_SCRIPT.read_text(), variables)
    before = time.time()
    facts = remote.run(lab.ssh["visitor"], candidate.FACTS_SCRIPT.read_text(), {"ADDRESSES": addresses})
    return candidate.parse(facts, probes, "172.16.6.66", (before, time.time()))


def tables(lab: Outputs) -> str:
    return remote.run(lab.ssh["a0"], "nft list tables").text


@pytest.mark.parametrize(
    ("flow", "verdict", "path"),
    [
        ("tcp/23", "drop", "firewall.policies.p.rules[0]"),
        ("udp/53", "accept", "firewall.policies.p.rules[1]"),
        ("tcp/80", "accept", None),
    ],
)
def test_why_live_names_rule(lab: Outputs, flow: str, verdict: str, path: str | None) -> None:
    before = tables(lab)
    explanation, live = ask(lab, "visitor", flow)
    assert live.error == ""
    assert live.verdict == verdict
    assert explanation.decision.path == path
    assert path is None or path in [step.path for step in live.steps]
    assert [counter.path for counter in live.counters] == ([path] if path else [])
    assert all(counter.packets > 0 for counter in live.counters)
    assert why.finding(explanation, live, "lab") is None
    assert tables(lab) == before, "the trace leaves nothing"


def test_why_live_names_rule_of_another_program(lab: Outputs) -> None:
    rule = "INPUT -p tcp -m tcp --dport 81 -j DROP"
    remote.run(lab.ssh["a0"], f"iptables -A {rule}")
    explanation, live = ask(lab, "visitor", "tcp/81")
    remote.run(lab.ssh["a0"], f"iptables -D {rule}")
    assert live.dropped_by
    assert rule in live.dropped_by.rule
    problem = why.finding(explanation, live, "lab")
    assert problem
    assert "another program's rule" in problem


def test_why_live_no_packet(lab: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "TRACE_SECONDS", 1)
    _, live = ask(lab, "172.16.6.99", "tcp/23")
    assert (live.verdict, live.error) == (None, "no first packet of it came from 172.16.6.99 within 1 s")


def test_trace_script_ends_after_session_is_cut(lab: Outputs) -> None:
    variables = scripts.trace_variables(explain(POLICIES, LAB, "visitor", "a0", "tcp/23").packet)
    answer = remote.run(
        lab.ssh["a0"], scripts.TRACE_SCRIPT.read_text(), {**variables, "DURATION": "12"}, seconds=4
    )
    assert not answer.reached
    assert "calico-lab-trace" in tables(lab)
    busy = remote.run(lab.ssh["a0"], scripts.TRACE_SCRIPT.read_text(), variables)
    assert (busy.status, busy.error) == (
        1,
        "trace: another trace runs on this host; try again in some seconds",
    )
    deadline = time.monotonic() + 60
    while "calico-lab-trace" in tables(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "calico-lab-trace" not in tables(lab)


def test_trace_script_deletes_table_of_killed_run(lab: Outputs) -> None:
    remote.run(lab.ssh["a0"], "nft add table inet calico-lab-trace")
    _, live = ask(lab, "visitor", "tcp/23")
    assert live.verdict == "drop"
    assert "calico-lab-trace" not in tables(lab)


LEFT_BEHIND = "INPUT -s 172.16.6.66/32 -p tcp -j REJECT --reject-with icmp-port-unreachable"
AGAINST_ANSWERS = "INPUT -s 172.16.6.44/32 -j DROP"


@pytest.mark.parametrize(
    ("machine", "rule", "said"),
    [
        ("a0", None, "no rule stops it; next: on a0: ss -ltnp sport = :82"),
        (
            "a0",
            LEFT_BEHIND,
            f"refused; a0 stops it: rule -t filter -A {LEFT_BEHIND}; "
            f"next: on a0: iptables -t filter -D {LEFT_BEHIND}",
        ),
        (
            "visitor",
            AGAINST_ANSWERS,
            f"silent; it gets to a0, and visitor stops the answer: rule -t filter -A {AGAINST_ANSWERS}; "
            f"next: on visitor: iptables -t filter -D {AGAINST_ANSWERS}",
        ),
        ("visitor", "OUTPUT -p tcp -m tcp --dport 82 -j DROP", "nothing of it arrives on a0"),
        ("a0", "OUTPUT -p tcp -m tcp --sport 82 -j DROP", "a0 lets it in, and no answer comes"),
    ],
)
def test_obstacle_names_rule(
    lab: Outputs, machine: str, rule: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "TRACE_SECONDS", 3)
    visitor, a0 = ends(lab)
    if rule:
        remote.run(lab.ssh[machine], f"iptables -A {rule}")
    try:
        found = obstacle(visitor, a0, 82)
    finally:
        if rule:
            remote.run(lab.ssh[machine], f"iptables -D {rule}")
    assert found
    assert found.startswith("visitor cannot open tcp/82 on a0 (172.16.6.44): ")
    assert said in found


def test_obstacle_open_port(lab: Outputs) -> None:
    with subprocess.Popen(
        [*lab.ssh["a0"].split(), "exec python3 -m http.server 84 --bind 172.16.6.44"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            eventually(lambda: no_obstacle(*ends(lab)), seconds=20)
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (None, "Connection refused"),
        ("INPUT -p tcp -m tcp --dport 79 -j DROP", "no answer within 4 s"),
        ("INPUT -p tcp -j REJECT --reject-with icmp-host-prohibited", "No route to host"),
        ("INPUT -p tcp -j REJECT --reject-with icmp-port-unreachable", "rejected by a rule"),
    ],
)
def test_doctor_connection_results(lab: Outputs, rule: str | None, said: str) -> None:
    if rule:
        remote.run(lab.ssh["a0"], f"iptables -I {rule}")
    try:
        checked = check(lab, "172.16.6.44", ["172.16.6.44:79"])
    finally:
        if rule:
            remote.run(lab.ssh["a0"], f"iptables -D {rule}")
    assert checked.error == ""
    assert checked.release
    assert checked.cpus
    assert checked.memory
    assert checked.disk
    assert checked.clock_ahead == 0
    assert checked.gateways == {}
    assert checked.connections == {("172.16.6.44", 79): said}


def test_doctor_single_host(lab: Outputs) -> None:
    checked = check(lab, "", [])
    assert (checked.error, checked.connections) == ("", {})


def test_doctor_listeners_and_routers(lab: Outputs) -> None:
    ssh = lab.ssh["visitor"]
    remote.run(ssh, "ip route add 172.16.7.0/24 via 172.16.6.44")
    with subprocess.Popen(
        [*ssh.split(), "exec python3 -m http.server 79 --bind 172.16.6.66"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            listens = "until ss -Hltn sport = :79 | grep -q .; do sleep 0.1; done"
            remote.run(ssh, listens)
            checked = check(lab, "172.16.7.7 172.16.6.44", [])
        finally:
            server.kill()
            remote.run(ssh, "ip route delete 172.16.7.0/24")
    assert checked.listeners == [candidate.Listener("172.16.6.66", 79, "python3")]
    assert checked.gateways == {"172.16.7.7": "172.16.6.44"}


def test_drift(lab: Outputs) -> None:
    listing = remote.run(
        lab.ssh["a0"], "iptables -S INPUT | grep LAB; iptables -S CALICO-LAB-INPUT"
    ).text.strip()
    applied = [{"host": "a0", "policies": ["p"], "loaded": {"ipv4": listing, "ipv6": ""}, "sets": {}}]
    [rules] = drift.look(lab, applied)
    assert rules.sound, rules
    assert [counter.path for counter in rules.counters][-2:] == [
        "firewall.policies.p.rules[0]",
        "firewall.policies.p.rules[1]",
    ]
    remote.run(lab.ssh["a0"], "iptables -I CALICO-LAB-INPUT -j ACCEPT")
    [rules] = drift.look(lab, applied)
    remote.run(lab.ssh["a0"], "iptables -D CALICO-LAB-INPUT -j ACCEPT")
    assert list(rules.drift) == ["iptables: found: -A CALICO-LAB-INPUT -j ACCEPT"]
    [unknown] = drift.look(lab, [])
    assert f"iptables: found: {listing.splitlines()[-1]}" in unknown.drift


@contextmanager
def watching(lab: Outputs, variables: Mapping[str, str]) -> Iterator[Future[remote.Answer]]:
    """A host that watches a flow; it has answered when this ends."""
    ready, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor() as pool:
        watch = pool.submit(
            remote.watch, lab.ssh["a0"], WATCH_SCRIPT.read_text(), variables, 30, ready=ready.set, over=over
        )
        try:
            assert ready.wait(10)
            yield watch
        finally:
            over.set()


def test_watch_script_traces_both_directions(lab: Outputs) -> None:
    before = tables(lab)
    with watching(lab, WATCH) as watch:
        assert "calico-lab-trace" in tables(lab)
        busy = remote.run(lab.ssh["a0"], WATCH_SCRIPT.read_text(), WATCH)
        remote.run(lab.ssh["visitor"], "exec 3<>/dev/tcp/172.16.6.44/81")
    seen = path_facts.parse("a0", watch.result(), WATCH["TARGET"])
    assert (busy.status, busy.error) == (
        1,
        "trace: another trace runs on this host; try again in some seconds",
    )
    assert seen.error == ""
    assert seen.request
    assert seen.answer
    assert (seen.request.in_interface, seen.request.reached) == ("eth0", {"delivered"})
    assert (seen.answer.out_interface, seen.answer.reached, seen.answer.summary) == (
        "eth0",
        {"sent"},
        "ACK RST",
    )
    assert seen.namespace.by_address("172.16.6.44")
    assert tables(lab) == before


@pytest.mark.parametrize(
    ("flow", "sends", "answers"),
    [
        ("tcp/81", "exec 3<>/dev/tcp/172.16.6.44/81", "ACK RST"),
        ("udp/81", "exec 3<>/dev/udp/172.16.6.44/81; echo >&3", "ICMP 172.16.6.44 udp port 81 unreachable"),
        ("icmp", "busybox ping -c 2 172.16.6.44", ""),
    ],
)
def test_watch_script_captures(flow: str, sends: str, answers: str, lab: Outputs) -> None:
    others = ["exec 3<>/dev/tcp/172.16.6.44/82", "exec 3<>/dev/udp/172.16.6.44/82; echo >&3"]
    capture = parse_flow(flow).capture_filter(WATCH["SOURCE"], [WATCH["SOURCE"]], WATCH["TARGET"])
    # The table waits for another packet, as if programs had handed this one on before.
    nothing = {"MATCH": "udp dport 9", "CONNECTION": "udp dport 9"}
    with watching(lab, {**WATCH, **nothing, "CAPTURE": capture}) as watch:
        for other in [*others, *(["busybox ping -c 1 172.16.6.44"] if flow != "icmp" else [])]:
            remote.run(lab.ssh["visitor"], other)
        remote.run(lab.ssh["visitor"], sends)
    seen = path_facts.parse("a0", watch.result(), WATCH["TARGET"])
    assert seen.error == ""
    assert seen.request
    assert seen.answer
    assert (seen.request.in_interface, seen.request.out_interface, seen.request.ttl) == ("eth0", "", 64)
    assert (seen.answer.in_interface, seen.answer.out_interface, seen.answer.summary) == ("", "eth0", answers)
    assert remote.run(lab.ssh["a0"], "ls /run/calico-lab-trace.captures").status != 0


def test_watch_script_killed_leaves_nothing(lab: Outputs) -> None:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in WATCH.items())
    command = [*shlex.split(lab.ssh["a0"]), "exec bash -s"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{exports}\n{WATCH_SCRIPT.read_text()}")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert "calico-lab-trace" in tables(lab)
        process.kill()
        deadline = time.monotonic() + 10
        while "calico-lab-trace" in tables(lab) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "calico-lab-trace" not in tables(lab)


def test_watch_script_reports_nft_error(lab: Outputs) -> None:
    answer = remote.run(lab.ssh["a0"], WATCH_SCRIPT.read_text(), {**WATCH, "MATCH": "tcp dport nonsense"})
    assert answer.status == 1
    assert answer.error.startswith("trace: nft: Error:")
