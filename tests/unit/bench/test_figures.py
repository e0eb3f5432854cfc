"""Figures from the output of the hosts' scripts."""

from pathlib import Path

import pytest

from bench import addresses, mode, start
from bench.mode import Mode


def test_start_read_drops_the_first_round() -> None:
    lines = ["bridge 900000", "netv 990000", "netv 440000", "bridge 400000", "bridge 500000", "netv 600000"]
    measured = start.read(lines)
    assert measured.samples == {"bridge": (400, 500), "netv": (440, 600)}
    assert measured.ratio("netv", start.REFERENCE) == pytest.approx(1.15)


def test_start_read_ignores_other_output_of_go() -> None:
    output = """\
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
    assert start.read(output.splitlines()).samples == {"bridge": (500,), "netv": (600,)}


def test_addresses_rate_ends_with_the_last_worker() -> None:
    assert addresses.rate(["15 500000", "15 400000", "30 600000"]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config: {'calico-lab:network': {encapsulation: vxlan}}", Mode("vxlan")),
        ("config: {'calico-lab:network': {name: netv, dataplane: ebpf}}", Mode("none", "ebpf")),
        ("config: {'calico-lab:hosts': {}}", Mode()),
    ],
)
def test_mode_configured(tmp_path: Path, text: str, expected: Mode) -> None:
    file = tmp_path / "Pulumi.lab.yaml"
    file.write_text(text)
    assert mode.configured(file) == expected
