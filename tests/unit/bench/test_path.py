"""Figures from the output of iperf3 and ping."""

import pytest

from bench import path
from bench.mode import Mode
from bench.path import Path


def pings(*milliseconds: float) -> str:
    answers = (f"64 bytes from 10.0.0.1: icmp_seq=1 ttl=62 time={one:.3f} ms" for one in milliseconds)
    return "\n".join(answers)


def silent(_command: str) -> str:
    return ""


def test_latency_is_the_mean_of_the_middle_half() -> None:
    output = pings(*[0.050] * 100, *[0.052, 0.054] * 100, *[9] * 100)
    assert path.latency(Path(lambda _: output, silent, "10.0.0.1")) == pytest.approx(53)


def test_latency_without_answers_is_an_error() -> None:
    output = pings(*[0.05] * 10) + "\n400 packets transmitted, 10 received"
    with pytest.raises(ValueError, match="10 of 400 were answered"):
        path.latency(Path(lambda _: output, silent, "10.0.0.1"))


def test_throughput_is_that_of_the_receiver() -> None:
    commands: list[str] = []

    def server(command: str) -> str:
        commands.append(command)
        return ""

    output = '{"end": {"sum_received": {"bits_per_second": 9.5e9}, "sum_sent": {"bits_per_second": 9.9e9}}}'
    assert path.throughput(Path(lambda _: output, server, "192.168.1.1")) == pytest.approx(9.5)
    assert "--bind 192.168.1.1" in commands[0]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (Mode(), "Calico, no encapsulation"),
        (Mode("vxlan"), "Calico, vxlan"),
        (Mode("none", "ebpf"), "Calico, no encapsulation, ebpf"),
    ],
)
def test_network_path_is_named_by_its_mode(mode: Mode, name: str) -> None:
    assert path.network_path(mode) == name
