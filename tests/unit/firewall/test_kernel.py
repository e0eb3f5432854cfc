"""The compiled rules and the evaluator against the kernel: the verdicts on every packet are equal."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.firewall.payload import restore_sets
from components.firewall.rules.compile import UNITS, compile_policies, restore_document
from components.firewall.rules.config import ICMP_TYPES, RATE_TOLERANCE, FirewallConfig, RateLimit
from components.firewall.rules.evaluate import Packet, State, decide, unknown_matches
from components.firewall.rules.resolve import ResolvedPolicy, resolve
from components.shared.policy_values import PolicyError
from tests.unit.firewall.firewall_cases import LAB, case, config, names
from tests.unit.firewall.kernel import HOST_ADDRESSES, LINK_LOCAL

PUBLISHED_PORTS = range(7000, 7010)
SOURCES = ["172.16.6.1", "172.16.6.66", "172.16.6.218", "10.1.2.3", "192.0.2.7", "fd00:6::66", "2001:db8::7"]
ADDRESSES = ["172.16.6.0/24", "172.16.6.66", "10.0.0.0/8", "0.0.0.0/0", "fd00:6::/64", "2001:db8::7", "::/0"]
MACS = ["02:42:ac:10:06:42", "02:42:ac:10:06:43"]
PORTS = [22, 80, 443, 7000, 7001, 7005, 8000, 8050, 8100]
RANGES = [*PORTS, "7001-7005", "8000-8100", "1-1023"]


@pytest.fixture(scope="module")
def kernel() -> Iterator["subprocess.Popen[str]"]:
    """A process in a network namespace of its own, which stands for a host (kernel.py)."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--net", sys.executable, "-m", "tests.unit.firewall.kernel"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def ask(
    kernel: "subprocess.Popen[str]", policies: tuple[ResolvedPolicy, ...], packets: list[Packet]
) -> dict[str, Any]:
    compiled = compile_policies(policies)
    request = {
        "ipv4": restore_document(compiled.ipv4, compiled.policies),
        "ipv6": restore_document(compiled.ipv6, compiled.policies),
        "sets": restore_sets(compiled.sets),
        "packets": [
            {
                **asdict(packet),
                "source": str(packet.source),
                "destination": str(packet.destination),
                "family": packet.family,
            }
            for packet in packets
        ],
    }
    assert kernel.stdin
    assert kernel.stdout
    kernel.stdin.write(json.dumps(request) + "\n")
    kernel.stdin.flush()
    answer: dict[str, Any] = json.loads(kernel.stdout.readline())
    return answer


def icmp_state(family: str, number: int) -> State:
    """The connection tracking state of a single ICMP message (nf_conntrack_proto_icmp.c, _icmpv6.c)."""
    if family == "ipv4":
        return "new" if number in (8, 13, 15, 17) else "invalid"
    if number in (*range(130, 138), 143):
        return "untracked"
    return "new" if number in (128, 139) else "invalid"


def packet(source: str, destination: str, protocol: str, *ports: int, **known: Any) -> Packet:  # noqa: ANN401
    """A packet from the host's own network; the ports are the source port and the destination port."""
    own, port = ports or (None, None)
    sender = {"mac": MACS[0], "interface": "eth0", **known}
    return Packet(ip_address(source), ip_address(destination), protocol, port=port, source_port=own, **sender)


# Packets that a host needs to stay on its network, and similar ones that it does not need.
NEEDED = {
    "IGMP query": packet("172.16.6.1", "224.0.0.1", "igmp"),
    "DHCP answer to all": packet("172.16.6.1", "255.255.255.255", "udp", 67, 68),
    "DHCP answer to the host": packet("10.1.2.3", "172.16.6.44", "udp", 67, 68),
    "DHCPv6 answer": packet("fe80::1", LINK_LOCAL, "udp", 547, 546),
    "DHCPv6 answer of a relay": packet("fe80::1", LINK_LOCAL, "udp", 40000, 546),
    "neighbour solicitation": packet("fe80::1", LINK_LOCAL, "icmp", icmp_type=135, state="untracked"),
}
NOT_NEEDED = {
    "DHCP answer from another port": packet("172.16.6.1", "172.16.6.44", "udp", 53, 68),
    "DHCP request": packet("172.16.6.66", "255.255.255.255", "udp", 68, 67),
    "DHCPv6 answer from elsewhere": packet("2001:db8::7", "fd00:6::44", "udp", 547, 546),
    "DHCPv6 request": packet("fe80::1", LINK_LOCAL, "udp", 546, 547),
}


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([*NEEDED.values(), *NOT_NEEDED.values()]))
    source = ip_address(draw(st.sampled_from(SOURCES)))
    destinations = [ip_address(host) for host in HOST_ADDRESSES]
    destination = draw(st.sampled_from([host for host in destinations if host.version == source.version]))
    protocol = draw(st.sampled_from(["tcp", "tcp", "udp", "sctp", "icmp", "other"]))
    states: list[State] = ["new", "new", "untracked", "invalid" if protocol == "tcp" else "new"]
    packet = Packet(
        source,
        destination,
        protocol,
        mac=draw(st.sampled_from(MACS)),
        interface=draw(st.sampled_from(["eth0", "eth1"])),
        state=draw(st.sampled_from(states)),
    )
    if protocol == "icmp":
        # The kernel handles redirects and neighbour discovery itself as well.
        number = draw(st.sampled_from(sorted(set(ICMP_TYPES[packet.family].values()) | {130, 135, 136})))
        return replace(packet, icmp_type=number, state=icmp_state(packet.family, number))
    if protocol == "other":
        return packet
    port = draw(st.sampled_from(PORTS))
    return replace(packet, port=port, published=port in PUBLISHED_PORTS and protocol in ("tcp", "udp"))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    def sometimes(key: str, values: st.SearchStrategy[Any]) -> dict[str, Any]:
        return {key: draw(values)} if draw(st.integers(0, 2)) == 0 else {}

    addresses = st.sampled_from([*ADDRESSES, "visitor", "operator", "a1", "few", "many"])
    rule = {
        "action": draw(st.sampled_from(["accept", "drop", "reject"])),
        **sometimes("source", addresses),
        **sometimes("destination", st.sampled_from([*HOST_ADDRESSES, "a0", "10.0.0.0/8", "fd00:6::/32"])),
        **sometimes("sourceMac", st.sampled_from([*MACS, "visitor"])),
        **sometimes("interface", st.sampled_from(["eth0", "eth1", "eth+", "wlan0"])),
        **sometimes("protocol", st.sampled_from(["tcp", "udp", "sctp", "icmp"])),
        **sometimes("log", st.booleans()),
    }
    if rule.get("protocol") == "icmp":
        types = sorted({name for names in ICMP_TYPES.values() for name in names})
        rule |= sometimes("icmpType", st.sampled_from(types))
    elif "protocol" in rule:
        rule |= sometimes("ports", st.lists(st.sampled_from(RANGES), min_size=1, max_size=20))
        rule |= sometimes("state", st.lists(st.sampled_from(["new", "invalid", "untracked"]), min_size=1))
    return rule


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """A section `firewall`; some of its rules may be valid in no address family."""
    policy = st.fixed_dictionaries(
        {
            "hosts": st.just("all"),
            "default": st.sampled_from(["accept", "drop"]),
            "appliesTo": st.sampled_from(["host", "published", "both"]),
            "order": st.integers(1, 3),
            "rules": st.lists(rules(), min_size=1, max_size=6),
        }
    )
    return {
        "sets": {"few": ["10.1.0.0/16", "a1"], "many": ["172.16.6.64/26", "fd00:6::/64", "192.0.2.7"]},
        "policies": draw(st.dictionaries(st.sampled_from("abc"), policy, min_size=1)),
    }


def meaningful(section: dict[str, Any]) -> tuple[ResolvedPolicy, ...]:
    """Resolve a section without its invalid rules."""
    for policy in section["policies"].values():
        kept = []
        for rule in policy["rules"]:
            alone = {"sets": section["sets"], "policies": {"p": {**policy, "rules": [rule]}}}
            try:
                resolve(FirewallConfig.model_validate(alone), LAB)
                kept.append(rule)
            except PolicyError:
                continue
        policy["rules"] = kept
        policy["default"] = policy["default"] if kept else "drop"
    return resolve(FirewallConfig.model_validate(section), LAB)["a0"]


@settings(max_examples=60, deadline=None)
@given(section=sections(), sent=st.lists(packets(), min_size=20, max_size=80))
def test_decide_agrees_with_the_kernel(
    kernel: "subprocess.Popen[str]", section: dict[str, Any], sent: list[Packet]
) -> None:
    policies = meaningful(section)
    decisions = [decide(policies, packet) for packet in sent]
    decided = Counter(
        f"{decision.policy.name}/{decision.rule.number if decision.rule else 'default'}"
        for decision in decisions
        if decision.policy
    )
    answer = ask(kernel, policies, sent)
    wrong = [
        (packet, decision.verdict, decision.reason)
        for packet, decision, passed in zip(sent, decisions, answer["passed"], strict=True)
        if passed != (decision.verdict == "accept")
    ]
    assert wrong == []
    assert answer["decided"] == dict(decided)


@pytest.mark.parametrize(
    ("sent", "passes"),
    [*((one, True) for one in NEEDED.values()), *((one, False) for one in NOT_NEEDED.values())],
    ids=[*NEEDED, *NOT_NEEDED],
)
def test_decide_accepts_what_a_host_needs_despite_default_drop(
    kernel: "subprocess.Popen[str]", sent: Packet, passes: bool
) -> None:
    policy = {"hosts": "all", "appliesTo": "both", "default": "drop"}
    policies = resolve(FirewallConfig.model_validate({"policies": {"p": policy}}), LAB)["a0"]
    assert (decide(policies, sent).verdict == "accept") is passes
    assert ask(kernel, policies, [sent])["passed"] == [passes]


@pytest.mark.parametrize("state", ["invalid", "untracked"])
def test_decide_untranslated_packets_are_for_the_host(kernel: "subprocess.Popen[str]", state: State) -> None:
    """It never reaches the container: connection tracking translates only packets with an entry."""
    sent = packet("172.16.6.66", "172.16.6.44", "tcp", 40000, 7000, state=state, published=True)
    for part, verdict in (("published", "accept"), ("host", "drop")):
        policy = {"hosts": "all", "appliesTo": part, "rules": [{"action": "drop", "state": [state]}]}
        policies = resolve(FirewallConfig.model_validate({"policies": {"p": policy}}), LAB)["a0"]
        assert decide(policies, sent).verdict == verdict
        assert ask(kernel, policies, [sent])["passed"] == [verdict == "accept"]


@settings(max_examples=200, deadline=None)
@given(
    section=sections(), packet=packets(), unknown=st.sets(st.sampled_from(["mac", "interface"]), min_size=1)
)
def test_unknown_matches_lists_every_possible_rule(
    section: dict[str, Any], packet: Packet, unknown: set[str]
) -> None:
    policies = meaningful(section)
    asked = replace(
        packet,
        mac=None if "mac" in unknown else packet.mac,
        interface=None if "interface" in unknown else packet.interface,
    )
    possible = [
        replace(asked, mac=asked.mac or mac, interface=asked.interface or interface)
        for mac in [*MACS, "02:00:00:00:00:01"]
        for interface in ["eth0", "eth1", "wlan0", "other"]
    ]
    deciding = decide(policies, asked).path
    unknown_rules = {match.rule.path for match in unknown_matches(policies, asked)}
    if deciding not in unknown_rules:
        assert {decide(policies, one).path for one in possible} <= {deciding, *unknown_rules}


@pytest.mark.parametrize("name", names("compile"))
def test_compile_policies_is_valid_for_the_kernel(kernel: "subprocess.Popen[str]", name: str) -> None:
    assert ask(kernel, resolve(config(case("compile", name)), LAB).get("a0", ()), [])["passed"] == []


@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize(
    "limit",
    [
        {"packets": 1, "per": "day", "burst": 1},
        {"packets": 5, "per": "day"},
        {"packets": 1, "per": "hour", "burst": 24},
        {"packets": 7, "per": "minute", "burst": 10_000},
        {"packets": 10_000, "per": "day", "burst": 10_000},
        {"packets": 10_000, "burst": 10_000},
        {"packets": 526},
    ],
    ids=str,
)
def test_rate_limit_in_both_kinds_of_iptables(variant: str, limit: dict[str, Any]) -> None:
    policy = {"hosts": "all", "rules": [{"action": "accept", "rateLimit": limit}]}
    policies = resolve(FirewallConfig.model_validate({"policies": {"p": policy}}), LAB)["a0"]
    compiled = compile_policies(policies)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    program = f"xtables-{variant}-multi iptables"
    script = f"{program}-restore --noflush && {program} -S CALICO-LAB-INPUT"
    done = subprocess.run(
        ["unshare", *user, "--net", "sh", "-euc", script],
        input=restore_document(compiled.ipv4, compiled.policies),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [listed] = re.findall(r"--limit (\d+)/(sec|min|hour|day)", done.stdout)
    asked = RateLimit.model_validate(limit)
    a_day = {"sec": 86_400, "min": 1_440, "hour": 24, "day": 1}
    wanted = asked.packets * a_day[UNITS[asked.per]]
    assert int(listed[0]) * a_day[listed[1]] == pytest.approx(wanted, rel=RATE_TOLERANCE)


@settings(max_examples=50, deadline=None)
@given(section=sections())
def test_compile_policies_is_deterministic(section: dict[str, Any]) -> None:
    policies = meaningful(section)
    shuffled = {**section, "policies": dict(reversed(section["policies"].items()))}
    again = resolve(FirewallConfig.model_validate(shuffled), LAB)["a0"]
    assert compile_policies(policies) == compile_policies(again)
