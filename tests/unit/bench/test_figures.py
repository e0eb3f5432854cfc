"""What the hosts' scripts print, as figures."""

from pathlib import Path

import pytest

from bench import addresses, mode, start
from bench.mode import Mode


def test_the_first_start_on_each_network_does_not_count() -> None:
    lines = ["bridge 900000", "netv 990000", "netv 440000", "bridge 400000", "bridge 500000", "netv 600000"]
    measured = start.read(lines)
    assert measured.values == {"bridge": (400, 500), "netv": (440, 600)}
    assert measured.ratio("netv", start.REFERENCE) == pytest.approx(1.15)


def test_what_else_go_prints_of_a_benchmark_is_no_start() -> None:
    said = """\
goos: linux
BenchmarkStart
bridge 900000
netv 990000
bridge 500000
netv 600000
BenchmarkStart-2   \t       1\t         1.200 beside-bridge\t       500.0 bridge-ms
PASS
ok  \tcalico-lab/docker-driver/conformance\t15.1s
"""
    assert start.read(said.splitlines()).values == {"bridge": (500,), "netv": (600,)}


def test_addresses_are_counted_until_the_last_worker_is_done() -> None:
    assert addresses.rate(["15 500000", "15 400000", "30 600000"]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config: {'calico-lab:network': {encapsulation: vxlan}}", Mode("vxlan")),
        ("config: {'calico-lab:network': {name: netv, dataplane: ebpf}}", Mode("none", "ebpf")),
        ("config: {'calico-lab:hosts': {}}", Mode()),
    ],
)
def test_the_configured_mode(tmp_path: Path, text: str, expected: Mode) -> None:
    file = tmp_path / "Pulumi.lab.yaml"
    file.write_text(text)
    assert mode.configured(file) == expected
