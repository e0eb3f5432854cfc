"""What the wire between two hosts carries while their containers talk."""

from pathlib import Path

from bench.guests import Guest
from lab import remote
from lab.stack import Outputs

WIRE = Path(__file__).with_name("wire.sh").read_text()


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
