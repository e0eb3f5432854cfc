"""The container network: routed by BGP between all hosts, without encapsulation."""

import itertools
import re

from bench.guests import Guest
from components.hosts import remote
from diagnosis import status
from tests.live.program import Program
from tests.live.wire import all_reach_all, on_the_wire
from workspace.outputs import Outputs


def test_bgp_established_between_all_hosts(outputs: Outputs, program: Program) -> None:
    seen = status.look(outputs, program.stack)
    sessions = {(host, peer): session for host, peer, session in seen.sessions()}
    assert set(sessions) == set(itertools.permutations(outputs.hosts, 2))
    assert {pair: session.state for pair, session in sessions.items() if not session.established} == {}


def test_containers_have_pool_addresses(outputs: Outputs, guest: dict[str, Guest]) -> None:
    addresses = {one.address for one in guest.values()}
    assert len(addresses) == len(outputs.hosts)
    assert all(address.startswith("192.168.") for address in addresses)


def test_ping_between_all_containers(guest: dict[str, Guest]) -> None:
    all_reach_all(guest)


def test_tcp_between_hosts(guest: dict[str, Guest]) -> None:
    first, *others = guest.values()
    for server in others:
        server.run(f"setsid timeout 60 nc -l -k {server.address} 5000 >/dev/null 2>&1 &")
        first.run(f"for _ in $(seq 50); do nc -z -w 2 {server.address} 5000 && exit; sleep 0.1; done; exit 1")


def test_routes_to_blocks_come_from_bird(outputs: Outputs, guest: dict[str, Guest]) -> None:
    for host, other in itertools.permutations(outputs.hosts, 2):
        answer = remote.run(outputs.ssh[host], f"ip route get {guest[other].address}")
        assert f"via {outputs.hosts[other]} " in answer.text
        routes = remote.run(outputs.ssh[host], f"ip route show proto bird via {outputs.hosts[other]}")
        assert routes.text.strip(), f"{host} has no route from BIRD by way of {other}"


def test_no_legacy_iptables_tables(outputs: Outputs) -> None:
    for host, ssh in outputs.ssh.items():
        answer = remote.run(ssh, "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null")
        assert answer.text == "", f"{host} has legacy tables"


def test_wire_has_no_encapsulation(outputs: Outputs, guest: dict[str, Guest]) -> None:
    hosts = list(guest)
    for here, there in ((hosts[0], hosts[1]), (hosts[0], hosts[2])):
        one, other = guest[here], guest[there]
        text = on_the_wire(outputs, one, other)
        echo = re.compile(rf"IP ({re.escape(one.address)}|{re.escape(other.address)}) > .*ICMP echo")
        seen = text.splitlines()
        between = [line for line in seen if echo.search(line)]
        assert len(between) == 6, text
        assert not [line for line in seen if "VXLAN" in line or ".4789" in line or "ipip" in line], text
