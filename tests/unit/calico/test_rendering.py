"""The config of the network, the files that Calico's programs read, and the units of its services."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi import RunError
from pydantic import ValidationError

from components.calico import component as calico
from components.calico.component import archive_digest
from components.calico.config import CalicoConfig
from components.calico.rendering import render_confd, render_datastore, render_environment
from toolchain.calico import pack

HERE = Path(calico.__file__).with_name("scripts")
CASES = Path(__file__).parent / "cases"
RENDERED = sorted((CASES / "rendered").glob("*.json"))


@pytest.mark.parametrize("case", sorted((CASES / "refused").glob("*.json")), ids=lambda path: path.stem)
def test_config_refused(case: Path) -> None:
    spec = json.loads(case.read_text())
    with pytest.raises(ValidationError) as refused:
        CalicoConfig.model_validate(spec["network"])
    assert spec["message"] in str(refused.value)


@pytest.mark.parametrize("case", RENDERED, ids=lambda path: path.stem)
def test_render_environment_and_datastore(case: Path) -> None:
    spec = json.loads(case.read_text())
    config = CalicoConfig.model_validate(spec["network"])
    environment = render_environment(config, spec["host"], spec["address"], spec["endpoints"])
    assert environment == case.with_suffix(".env").read_text()
    rendered = render_datastore(config, spec.get("reserved", []))
    assert rendered == case.with_suffix(".yaml").read_text()


@pytest.mark.parametrize(
    ("values", "overhead"),
    [
        ({}, 0),
        ({"encapsulation": "vxlan"}, 50),
        ({"encapsulation": "vxlan-cross-subnet"}, 50),
        ({"wireguard": True}, 60),
        ({"wireguard": True, "encapsulation": "vxlan"}, 60),
    ],
)
def test_config_overhead(values: dict[str, Any], overhead: int) -> None:
    assert CalicoConfig.model_validate(values).overhead == overhead


def pool(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - values of the config file
    resources = yaml.safe_load_all(render_datastore(CalicoConfig.model_validate(values)))
    (found,) = (resource for resource in resources if resource["kind"] == "IPPool")
    assert found["metadata"]["name"] == values.get("name", "netv")
    spec: dict[str, Any] = found["spec"]
    return spec


def test_render_datastore_pool_encapsulation() -> None:
    assert (pool()["ipipMode"], pool()["vxlanMode"]) == ("Never", "Never")
    assert (pool(encapsulation="vxlan")["ipipMode"], pool(encapsulation="vxlan")["vxlanMode"]) == (
        "Never",
        "Always",
    )


def test_render_datastore_pool_values() -> None:
    spec = pool(name="x", cidr="10.1.0.0/20", blockSize=28, natOutgoing=False)
    assert (spec["cidr"], spec["blockSize"], spec["natOutgoing"]) == ("10.1.0.0/20", 28, False)


@pytest.mark.parametrize("case", RENDERED, ids=lambda path: path.stem)
def test_render_environment_felix_has_the_same_datastore(case: Path) -> None:
    lines = [line for line in case.with_suffix(".env").read_text().splitlines() if "=" in line]
    environment = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    for felix, others in {
        "FELIX_FELIXHOSTNAME": "NODENAME",
        "FELIX_DATASTORETYPE": "DATASTORE_TYPE",
        "FELIX_ETCDENDPOINTS": "ETCD_ENDPOINTS",
        "FELIX_ETCDCAFILE": "ETCD_CA_CERT_FILE",
        "FELIX_ETCDCERTFILE": "ETCD_CERT_FILE",
        "FELIX_ETCDKEYFILE": "ETCD_KEY_FILE",
    }.items():
        assert environment[felix] == environment[others]
    assert "http://" not in environment["ETCD_ENDPOINTS"]


def test_render_confd_writes_what_bird_reads() -> None:
    resources = {Path(path).stem: tomllib.loads(text)["template"] for path, text in render_confd().items()}
    assert set(resources) == {"bird", "bird_aggr", "bird_ipam"}
    unit = (HERE.with_name("units") / "calico-lab-bird.service").read_text()
    for name, resource in resources.items():
        assert resource["src"] == f"{name}.cfg.template"
        assert resource["dest"] == f"/var/lib/calico-lab/calico/bird/{name}.cfg"
        assert "--signal=HUP calico-lab-bird.service" in resource["reload_cmd"]
    assert resources["bird"]["check_cmd"] == "/usr/sbin/bird -p -c {{.src}}"
    assert f"-c {resources['bird']['dest']}" in unit


def unit_of(name: str) -> dict[str, list[str]]:
    """A unit file's settings; one that is given several times has several values."""
    settings: dict[str, list[str]] = {}
    for line in (HERE.with_name("units") / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def test_units_are_all_placed() -> None:
    there = {path.name for path in HERE.with_name("units").iterdir()}
    assert {*calico.UNITS, calico.EBPF_UNIT} == there


@pytest.mark.parametrize("name", [unit for unit in calico.UNITS if unit.endswith(".service")])
def test_units_of_services_belong_to_the_target(name: str) -> None:
    unit = unit_of(name)
    assert unit["PartOf"] == unit["WantedBy"] == ["calico-lab-calico.target"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["Restart"] in (["always"], ["on-failure"])
    if name != "calico-lab-calico-startup.service":
        assert "calico-lab-calico-startup.service" in unit["After"][0]


def test_units_start_before_docker() -> None:
    assert unit_of("calico-lab-docker-driver.service")["Before"] == ["docker.service"]
    assert "calico-lab-etcd.service" in unit_of("calico-lab-calico-startup.service")["After"][0]


def test_archive_digest_is_what_the_toolchain_has_written(tmp_path: Path) -> None:
    archive = tmp_path / "calico.tar.gz"
    pack(archive, {})
    assert archive_digest(archive) == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_archive_digest_of_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"calico\.tar\.gz: Calico's programs are not there; 'make setup'"):
        archive_digest(tmp_path / "calico.tar.gz")


def test_units_pool_route_is_removed_by_the_same_command() -> None:
    flush, _ = unit_of("calico-lab-calico-startup.service")["ExecStartPre"]
    assert flush.removeprefix("/sbin/") in (HERE / "remove-services.sh").read_text()
