"""The config of the etcd cluster, the files that it renders to, and the changes that are refused."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.etcd import rendering as etcd
from components.etcd.config import EtcdConfig
from components.etcd.membership import refusals
from components.etcd.rendering import client_url, render_client, render_settings

CASES = Path(__file__).parent / "cases"
SETTINGS = sorted((CASES / "settings").glob("*.json"))


@pytest.mark.parametrize("case", sorted((CASES / "refused").glob("*.json")), ids=lambda path: path.stem)
def test_config_refused(case: Path) -> None:
    spec = json.loads(case.read_text())
    with pytest.raises(ValidationError) as refused:
        EtcdConfig.model_validate(spec["etcd"])
    assert spec["message"] in str(refused.value)


def members(count: int) -> EtcdConfig:
    return EtcdConfig.model_validate({"members": [f"a{number}" for number in range(count)]})


@pytest.mark.parametrize(("count", "survives"), [(2, 0), (4, 1), (6, 2)])
def test_config_even_number_of_members_warns(count: int, survives: int) -> None:
    (warning,) = members(count).warnings()
    assert f"a quorum of {count} members survives the loss of {survives}" in warning


@pytest.mark.parametrize("count", [1, 3, 5])
def test_config_odd_number_of_members(count: int) -> None:
    assert members(count).warnings() == []


@pytest.mark.parametrize("case", SETTINGS, ids=lambda path: path.stem)
def test_render_settings(case: Path) -> None:
    spec = json.loads(case.read_text())
    config = EtcdConfig.model_validate(spec["etcd"])
    rendered = render_settings(config, spec["member"], spec["addresses"][spec["member"]])
    assert rendered == case.with_suffix(".member.env").read_text()
    urls = [client_url(config, address) for address in spec["addresses"].values()]
    client = render_client(urls, etcd.AUTHORITY_FILE, etcd.CERTIFICATE_FILE, etcd.KEY_FILE)
    assert client == case.with_suffix(".client.env").read_text()


@pytest.mark.parametrize("case", SETTINGS, ids=lambda path: path.stem)
def test_render_settings_mutual_tls(case: Path) -> None:
    lines = case.with_suffix(".member.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line.startswith("ETCD_"))
    for side, option in {"CLIENT": "ETCD", "PEER": "ETCD_PEER"}.items():
        assert settings[f"{option}_CLIENT_CERT_AUTH"] == "true"
        assert settings[f"{option}_TRUSTED_CA_FILE"] == etcd.AUTHORITY_FILE
        assert all(url.startswith("https://") for url in settings[f"ETCD_LISTEN_{side}_URLS"].split(","))
    assert settings["ETCD_PEER_CERT_ALLOWED_CN"] == etcd.PEER_NAME
    assert settings["ETCD_LISTEN_METRICS_URLS"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("case", sorted((CASES / "membership").glob("*.json")), ids=lambda path: path.stem)
def test_membership_change_refused(case: Path) -> None:
    spec = json.loads(case.read_text())
    found = refusals(spec["before"], spec["after"])
    assert len(found) == len(spec["refusals"])
    for failure, text in zip(found, spec["refusals"], strict=True):
        assert text in failure.reason
        assert failure.reason.startswith(f"etcd.{failure.property}: ")
        assert "put the old value back" in failure.reason
