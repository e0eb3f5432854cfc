"""What is read from iperf3 and ping, and how turns become one number."""

import pytest

from bench import path
from bench.path import Comparison, Turn


def test_latency_is_read_from_ping() -> None:
    told = "300 packets transmitted, 300 received\nrtt min/avg/max/mdev = 0.031/0.052/0.4/0.02 ms"
    assert path.latency(lambda command: told, "172.16.6.218") == pytest.approx(52)


def test_ping_without_times_is_an_error() -> None:
    with pytest.raises(ValueError, match="told no times: 100% packet loss"):
        path.latency(lambda command: "100% packet loss", "172.16.6.218")


def test_throughput_is_what_the_receiver_got() -> None:
    said: list[str] = []

    def server(command: str) -> str:
        said.append(command)
        return ""

    told = '{"end": {"sum_received": {"bits_per_second": 9.5e9}, "sum_sent": {"bits_per_second": 9.9e9}}}'
    assert path.throughput(server, lambda command: told, "192.168.1.1") == pytest.approx(9.5)
    assert "--bind 192.168.1.1" in said[0]


def test_ratios_are_taken_within_a_turn() -> None:
    one = Comparison("throughput", "Gbit/s", (Turn(10, 9), Turn(5, 4), Turn(20, 19)))
    assert (one.host, one.container) == (10, 9)
    assert one.ratio == pytest.approx(0.9)
