"""Setup: what it reads from the stack's config, and what it forecasts."""

import sys
from pathlib import Path

import pytest

from toolchain import calico, pulumi
from toolchain.golang import Go
from workspace.setup import asks_for_ebpf, forecast

CONFIGS = {
    "alias": ("config:\n  calico-lab:network: &network\n    dataplane: &plane ebpf\n", True),
    "value-of-another-key": ("config:\n  calico-lab:network:\n    name: 'dataplane: ebpf'\n", False),
    "text": ("config:\n  calico-lab:network:\n    description: |\n      dataplane: ebpf\n", False),
    "list": ("config:\n  calico-lab:network: [dataplane, ebpf]\n", False),
    "invalid": ("config: {\n", False),
    "empty-file": ("", False),
    "ebpf": ("config:\n  calico-lab:network:\n    dataplane: ebpf\n", True),
    "quoted": ("config:\n  calico-lab:network:\n    dataplane: 'ebpf'\n", True),
    "flow-mapping": ("config:\n  calico-lab:network: {name: netv, dataplane: ebpf}\n", True),
    "json": ('{"config": {"calico-lab:network": {"dataplane": "ebpf"}}}', True),
    "iptables": ("config:\n  calico-lab:network:\n    dataplane: iptables\n", False),
    "comment": ("config:\n  calico-lab:network:\n    # dataplane: ebpf\n    name: netv\n", False),
    "no-network": ("config: {}\n", False),
}


@pytest.mark.parametrize(("text", "asks"), CONFIGS.values(), ids=CONFIGS)
def test_asks_for_ebpf(tmp_path: Path, text: str, *, asks: bool) -> None:
    config = tmp_path / "Pulumi.lab.yaml"
    config.write_text(text)
    assert asks_for_ebpf(config, Path(sys.executable)) is asks


FORECASTS = {
    "everything": (
        700.0,
        420.0,
        ["Pulumi and its plugins, because get.pulumi.com", " and Calico", "10 minutes"],
    ),
    "official-pulumi": (0.0, 420.0, ["compiles Calico\n", "about 4 minutes"]),
    "driver-alone": (0.0, 20.0, ["about 1 minutes"]),
}


@pytest.mark.parametrize(("pulumi_s", "calico_s", "said"), FORECASTS.values(), ids=FORECASTS)
def test_forecast_names_what_is_compiled_why_and_for_how_long(
    *, pulumi_s: float, calico_s: float, said: list[str], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulumi, "to_build", lambda _: pulumi_s)
    monkeypatch.setattr(calico, "to_build", lambda _: calico_s)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    text = forecast(go)
    for part in said:
        assert part in text
    assert "2 processors" in text


def test_forecast_is_empty_where_nothing_is_compiled(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi, "to_build", lambda _: 0.0)
    monkeypatch.setattr(calico, "to_build", lambda _: 0.0)
    assert not forecast(go)
