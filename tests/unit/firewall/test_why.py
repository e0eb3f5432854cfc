"""`lab why`'s questions: what the policies answer, and what a trace of the kernel says."""

import json
from typing import Any

import pytest

from components.firewall.rules.resolve import resolve
from diagnosis.explanation import explain, path_of, read_counters, read_trace
from tests.unit.firewall.firewall_cases import CASES, LAB, config

DOCUMENT: dict[str, Any] = json.loads((CASES / "why.json").read_text())


@pytest.mark.parametrize("question", DOCUMENT["questions"], ids=lambda question: " ".join(question["ask"]))
def test_explain(question: dict[str, Any]) -> None:
    policies = resolve(config(DOCUMENT), LAB)
    label, doubts = None, []
    try:
        explanation = explain(policies, LAB, *question["ask"], published=question["published"])
        answer, label = str(explanation), explanation.label
        doubts = [str(doubt) for doubt in explanation.doubts]
    except ValueError as error:
        answer = str(error)
    assert (answer, label, doubts) == (question["answer"], question["label"], question.get("doubts", []))


def test_read_trace() -> None:
    steps = read_trace((CASES / "trace.txt").read_text())
    assert [(step.table, step.chain, step.verdict) for step in steps] == [
        ("nat", "PREROUTING", "JUMP"),
        ("nat", "PREROUTING", "ACCEPT"),
        ("filter", "INPUT", "JUMP"),
        ("filter", "CALICO-LAB-INPUT", "DROP"),
    ]
    assert [step.path for step in steps] == [None, None, None, "firewall.policies.only-http.default"]
    assert steps[2].rule == "-4 -t filter -A INPUT -j CALICO-LAB-INPUT"


@pytest.mark.parametrize(("program", "family"), [("iptables", "-4"), ("ip6tables", "-6")])
def test_a_newer_iptables_has_its_name_where_others_have_the_family(program: str, family: str) -> None:
    rule = "-t filter -A INPUT -s 172.16.6.44/32 -j REJECT"
    [step] = read_trace(f" TRACE: 2 7012 filter:INPUT:rule:0x5:REJECT  {program} {rule}")
    assert step.rule == f"{family} {rule}"


def test_a_line_that_a_newer_iptables_does_not_end() -> None:
    own = " TRACE: 1 {} calico-lab-trace:prerouting:rule:0x2:CONTINUE  "
    first = (
        " TRACE: 2 11ff filter:INPUT:rule:0x5:DROP  iptables -t filter -A INPUT -s 172.16.6.44/32 -j REJECT"
    )
    [step] = read_trace(f"{own.format('11ff')}{own.format('22ff')}{first}\n")
    assert (step.verdict, step.rule) == ("DROP", "-4 -t filter -A INPUT -s 172.16.6.44/32 -j REJECT")


def test_return_has_no_word_in_a_trace() -> None:
    rule = '-4 -t filter -A CALICO-LAB-INPUT -m comment --comment "web/2 seen" -j RETURN'
    [step] = read_trace(f" TRACE: 2 7012 filter:CALICO-LAB-INPUT:rule:0x5:0xfffffffb  {rule}")
    assert (step.verdict, step.path) == ("RETURN", "firewall.policies.web.rules[1]")


def test_counters() -> None:
    ours = '-A CALICO-LAB-INPUT -m comment --comment "web/2" -j DROP'
    text = f"noise\niptables [3:180] {ours}\nip6tables [0:0] -A CALICO-LAB-INPUT -i lo -j RETURN"
    first, second = read_counters(text)
    assert (first.program, first.packets, first.bytes, first.rule) == ("iptables", 3, 180, ours)
    assert (first.path, second.path) == ("firewall.policies.web.rules[1]", None)


def test_only_the_labs_own_chains_have_a_path() -> None:
    assert path_of('-A INPUT -m comment --comment "web/2" -j DROP') is None


def test_no_packet_came() -> None:
    assert read_trace("") == []
