"""Trace: what is parsed from the answers of hosts, and Felix's verdicts."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.hosts.remote import Answer
from diagnosis.trace.bpf import parse_programs, verdict_by_programs
from diagnosis.trace.capture import captured_traces
from diagnosis.trace.felix import verdict_by_rules
from diagnosis.trace.flow import Outcome, parse_flow, parse_outcome
from diagnosis.trace.namespace import Namespace, Route
from diagnosis.trace.packet_trace import parse_packet_traces
from diagnosis.trace.path_facts import parse
from diagnosis.xtables import Step

FIXTURES = Path(__file__).parents[1] / "lab" / "trace"
ACROSS = FIXTURES / "across-hosts"
EBPF = FIXTURES / "ebpf-across-hosts"


def test_route_longest_prefix_then_lowest_metric() -> None:
    routes = [
        Route("default", "unicast", "10.0.0.1", "eth0", "boot"),
        Route("192.168.0.0/16", "unreachable", None, None, "kernel", 65535),
        Route("192.168.7.0/26", "unicast", "10.0.0.3", "eth0", "bird", 32),
        Route("192.168.7.0/26", "blackhole", None, None, "bird"),
        Route("192.168.7.9", "unicast", None, "cali1", "boot"),
    ]
    seen = Namespace(routes=routes)
    for address, route in {"192.168.7.9": 4, "192.168.7.8": 3, "192.168.8.1": 1, "10.9.9.9": 0}.items():
        assert seen.route(address) == routes[route]
    assert Namespace().route("10.0.0.1") is None


@pytest.mark.parametrize(
    ("flow", "text", "answered", "words"),
    [
        ("icmp", "3 packets transmitted, 2 received, 33% packet loss", True, "2 of 3 answered"),
        ("icmp", "3 packets transmitted, 0 received, 100% packet loss", False, "no echo-request answered"),
        (
            "icmp",
            "From 10.0.0.1 icmp_seq=1 Destination Host Unreachable\n3 packets transmitted, 0 received, +1",
            False,
            "10.0.0.1 says: Destination Host Unreachable",
        ),
        ("tcp/80", "connected\n", True, "connected"),
        ("tcp/80", "bash: connect: Connection refused\nstatus 1", True, "Connection refused"),
        ("tcp/80", "bash: connect: No route to host\nstatus 1", False, "No route to host"),
        ("tcp/80", "status 124", False, "no answer within 3 s"),
        ("udp/53", "status 142", False, "no answer within 1 s, nor does UDP owe one"),
        ("udp/53", "answered", True, "answered"),
    ],
)
def test_parse_outcome(flow: str, text: str, answered: bool, words: str) -> None:
    assert parse_outcome(parse_flow(flow), Answer(0, text, "")) == Outcome(answered, words)


def test_parse_outcome_nothing_sent() -> None:
    answer = Answer(1, "", "no such container")
    assert parse_outcome(parse_flow("icmp"), answer) == Outcome(False, "no such container", failed=True)


def test_parse_packet_traces_other_packets() -> None:
    text = (ACROSS / "a0.path.txt").read_text()
    stray = text.replace("08b6aa16", "0")
    assert parse_packet_traces("") == {}
    assert (
        parse_packet_traces(re.sub(r"^.*calico-lab-trace:(request|answer).*\n", "", stray, flags=re.M)) == {}
    )
    assert set(parse_packet_traces(text)) == {"request", "answer"}


@pytest.mark.parametrize(
    ("rules", "passes", "by"),
    [
        ([("cali-fw-cali1", "ACCEPT", "-m conntrack -j ACCEPT")], True, "a connection that it knows"),
        (
            [("cali-fw-cali1", "DROP", '-m comment --comment "Drop if no profiles matched" -j DROP')],
            False,
            "Drop if no profiles matched",
        ),
        (
            [
                ("cali-fw-cali1", "JUMP", "-j cali-po-a"),
                ("cali-fw-cali1", "JUMP", "-j cali-po-b"),
                ("cali-fw-cali1", "DROP", '-m comment --comment "End of tier default. Drop" -j DROP'),
            ],
            False,
            "no rule of policy one, cali-po-b lets it pass",
        ),
        (
            [
                ("cali-fw-cali1", "JUMP", "-j cali-po-a"),
                ("cali-po-a", "CONTINUE", "-p tcp -j MARK --set-xmark 0x10000/0x10000"),
                ("cali-fw-cali1", "RETURN", "-m mark --mark 0x10000/0x10000 -j RETURN"),
            ],
            True,
            "policy one",
        ),
    ],
)
def test_verdict_by_rules(rules: list[tuple[str, str, str]], passes: bool, by: str) -> None:
    steps = [Step("filter", *rule) for rule in rules]
    verdict = verdict_by_rules(steps, "egress", {"cali-po-a": "policy one"})
    assert verdict
    assert (verdict.passes, verdict.by) == (passes, by)
    assert verdict_by_rules(steps, "ingress", {}) is None


def _dump(counts: Mapping[str, int], policies: tuple[str, ...] = ("default.a",)) -> list[str]:
    """What Felix prints about a program with three rules for each policy, and a profile."""

    def rule(name: str, action: str) -> list[str]:
        # Protocol buffers vary the spaces in their text.
        text = f'action:"{action}"{" " * (1 + sum(counts.values()) % 2)}dst_net:"{name}"'
        return [f'// Start of rule {text} rule_id:"{name}"', f"// count = {counts.get(name, 0)}"]

    lines = ["IfaceName: cali1", "Hook: tc egress", "Error: ", "Policy Info:"]
    for policy in policies:
        lines += ["// Start of tier default", f"// Start of policy {policy}", *rule("log", "log")]
        lines += [*rule("deny", "deny"), *rule("allow", "allow"), f"// End of policy {policy}"]
    return [*lines, "// End of tier default: deny", *rule("profile", "allow")]


@pytest.mark.parametrize(
    ("counted", "dropped", "passed", "passes", "by"),
    [
        ({"allow": 1}, 0, True, True, "policy default.a"),
        ({"log": 1, "allow": 1}, 0, True, True, "policy default.a"),
        ({"log": 3, "deny": 3}, 3, False, False, "policy default.a"),
        ({"deny": 1, "allow": 1}, 1, True, True, "policy default.a"),
        ({"deny": 1, "allow": 1}, 1, False, False, "policy default.a"),
        ({}, 3, False, False, "no rule of policy default.a lets it pass"),
        ({"profile": 1}, 0, True, True, "profile netv"),
        ({}, 0, True, True, "a connection that it knows"),
        ({"allow": 1}, 0, False, True, "policy default.a"),
    ],
)
def test_verdict_by_programs(
    counted: Mapping[str, int], dropped: int, passed: bool, passes: bool, by: str
) -> None:
    earlier = {"allow": 7, "deny": 4, "log": 11, "profile": 2}
    later = {name: count + counted.get(name, 0) for name, count in earlier.items()}
    before = parse_programs(_dump(earlier), {"ingress": 4})["ingress"]
    after = parse_programs(_dump(later), {"ingress": 4 + dropped})["ingress"]
    verdict = verdict_by_programs(before, after, ["netv"], passed=passed)
    assert verdict
    assert (verdict.passes, verdict.by) == (passes, by)
    assert verdict_by_programs(before, before, ["netv"], passed=False) is None, "it saw no packet"


def test_verdict_by_programs_without_policy() -> None:
    before, after = (parse_programs(_dump({"profile": count}, ()), {})["ingress"] for count in (0, 1))
    verdict = verdict_by_programs(before, after, ["netv"], passed=True)
    assert verdict
    assert verdict.chains == ("tc egress of cali1", "profile netv")


def test_verdict_by_programs_after_a_tier_that_passes_on() -> None:
    """A packet that nothing allows is dropped for want of a rule in the tier that denies the rest."""
    passes_on = [
        "// Start of tier calico-lab",
        "// Start of policy calico-lab.students",
        '// Start of rule action:"deny" rule_id:"students"',
        "// count = 0",
        "// End of policy calico-lab.students",
        "// End of tier calico-lab: pass",
    ]
    dump = _dump({})
    dump[4:4] = passes_on
    before, after = (parse_programs(dump, {"ingress": dropped})["ingress"] for dropped in (0, 1))
    assert after.policies == ["calico-lab.students", "default.a"]
    verdict = verdict_by_programs(before, after, ["netv"], passed=False)
    assert verdict
    assert (verdict.passes, verdict.by) == (False, "no rule of policy default.a lets it pass")


def test_captured_traces_decapsulated_packet() -> None:
    seen = [
        "vxlan.calico P   IP (tos 0x0, ttl 64, id 11700, offset 0, flags [none], proto ICMP (1), length 84)",
        "    192.168.0.100 > 192.168.0.101: ICMP echo request, id 45591, seq 1, length 64",
    ]
    assert captured_traces(seen, {}, "192.168.0.101")["request"].in_interface == "vxlan.calico"


@settings(deadline=None)
@given(case=st.sampled_from([ACROSS, EBPF]), cut=st.floats(0, 1), part=st.text(max_size=30))
def test_path_facts_cut_or_garbled_answer(case: Path, cut: float, part: str) -> None:
    text = (case / "a0.path.txt").read_text()
    place = int(cut * (len(text) - len("complete yes\n")))
    assert parse("a0", Answer(0, text[:place], ""), "192.168.0.64").error == "the answer broke off"
    garbled = f"{text[:place]}{part}{text[place + len(part) :]}"
    parse("a0", Answer(0, garbled, ""), "192.168.0.64")
