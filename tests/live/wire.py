"""Whether containers reach each other, and what the wire between their hosts carries meanwhile."""

import re
from itertools import permutations
from pathlib import Path

from bench.guests import Guest
from components.hosts import remote
from tests.live.waiting import eventually
from workspace.outputs import Outputs

WIRE = Path(__file__).with_name("wire.sh").read_text()


def all_reach_all(guest: dict[str, Guest]) -> None:
    """Fail where a guest gets no answers from another."""
    for one, other in permutations(guest.values(), 2):

        def reaches(one: Guest = one, other: Guest = other) -> None:
            assert "2 received" in one.try_run(f"ping -c 2 -i 0.2 -W 2 {other.address}").text

        # Felix has the endpoints of new containers a moment later.
        eventually(reaches, seconds=20)


def on_the_wire(outputs: Outputs, one: Guest, other: Guest) -> str:
    """What tcpdump prints of the first one's host while it pings the other three times."""
    variables = {
        "NAME": one.name,
        "PEER": other.address,
        "VIA": outputs.hosts[other.host],
        "CIDR": outputs.cidr,
    }
    answer = remote.run(outputs.ssh[one.host], WIRE, variables)
    assert answer.status == 0, answer.error
    return answer.text


def in_a_tunnel(outputs: Outputs, one: Guest, other: Guest) -> None:
    """Fail where a packet between them does not travel in VXLAN between their hosts."""
    seen = on_the_wire(outputs, one, other)
    here, there = outputs.hosts[one.host], outputs.hosts[other.host]
    tunnelled = re.findall(r"IP (\S+)\.\d+ > (\S+)\.4789: VXLAN.*\n\s*IP (\S+) > (\S+): ICMP echo", seen)
    assert len(tunnelled) == 6, seen
    assert {pair[:2] for pair in tunnelled} == {(here, there), (there, here)}
    assert {pair[2:] for pair in tunnelled} == {(one.address, other.address), (other.address, one.address)}


def encrypted(outputs: Outputs, one: Guest, other: Guest) -> None:
    """Fail where a packet between them can be read between their hosts."""
    seen = [line for line in on_the_wire(outputs, one, other).splitlines() if line]
    here, there = outputs.hosts[one.host], outputs.hosts[other.host]
    pairs = [re.search(r"IP (\S+)\.51820 > (\S+)\.51820: UDP", line) for line in seen]
    assert len(pairs) >= 6, seen
    assert {pair.groups() if pair else None for pair in pairs} == {(here, there), (there, here)}, seen
