"""xtables: what is parsed from xtables-monitor and iptables-save."""

from pathlib import Path

import pytest

from diagnosis.xtables import config_path, parse_counters, parse_trace


def test_parse_trace() -> None:
    steps = parse_trace((Path(__file__).parent / "trace.txt").read_text())
    assert [(step.table, step.chain, step.verdict) for step in steps] == [
        ("nat", "PREROUTING", "JUMP"),
        ("nat", "PREROUTING", "ACCEPT"),
        ("filter", "INPUT", "JUMP"),
        ("filter", "CALICO-LAB-INPUT", "DROP"),
    ]
    assert [step.path for step in steps] == [None, None, None, "firewall.policies.only-http.default"]
    assert steps[2].rule == "-4 -t filter -A INPUT -j CALICO-LAB-INPUT"


@pytest.mark.parametrize(("program", "family"), [("iptables", "-4"), ("ip6tables", "-6")])
def test_parse_trace_program_name_before_rule(program: str, family: str) -> None:
    rule = "-t filter -A INPUT -s 172.16.6.44/32 -j REJECT"
    [step] = parse_trace(f" TRACE: 2 7012 filter:INPUT:rule:0x5:REJECT  {program} {rule}")
    assert step.rule == f"{family} {rule}"


def test_parse_trace_line_without_newline() -> None:
    own = " TRACE: 1 {} calico-lab-trace:prerouting:rule:0x2:CONTINUE  "
    first = (
        " TRACE: 2 11ff filter:INPUT:rule:0x5:DROP  iptables -t filter -A INPUT -s 172.16.6.44/32 -j REJECT"
    )
    [step] = parse_trace(f"{own.format('11ff')}{own.format('22ff')}{first}\n")
    assert (step.verdict, step.rule) == ("DROP", "-4 -t filter -A INPUT -s 172.16.6.44/32 -j REJECT")


def test_parse_trace_return() -> None:
    rule = '-4 -t filter -A CALICO-LAB-INPUT -m comment --comment "web/2 seen" -j RETURN'
    [step] = parse_trace(f" TRACE: 2 7012 filter:CALICO-LAB-INPUT:rule:0x5:0xfffffffb  {rule}")
    assert (step.verdict, step.path) == ("RETURN", "firewall.policies.web.rules[1]")


def test_parse_counters() -> None:
    ours = '-A CALICO-LAB-INPUT -m comment --comment "web/2" -j DROP'
    text = f"noise\niptables [3:180] {ours}\nip6tables [0:0] -A CALICO-LAB-INPUT -i lo -j RETURN"
    first, second = parse_counters(text)
    assert (first.program, first.packets, first.bytes, first.rule) == ("iptables", 3, 180, ours)
    assert (first.path, second.path) == ("firewall.policies.web.rules[1]", None)


def test_config_path_of_other_chain() -> None:
    assert config_path('-A INPUT -m comment --comment "web/2" -j DROP') is None


def test_parse_trace_no_packet() -> None:
    assert parse_trace("") == []
