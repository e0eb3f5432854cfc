"""The sections of the services: their defaults, and what they refuse."""

from typing import Any

import pytest
from pydantic import ValidationError

from components.notebooks.config import NotebookConfig
from components.services.config import ProxyConfig, SshBoxConfig
from components.shared.section import Section


def test_config_defaults() -> None:
    assert NotebookConfig.model_validate({"address": "192.168.0.100"}).host == "a1"
    box = SshBoxConfig.model_validate({})
    assert (box.host, box.address) == ("a0", None)
    proxy = ProxyConfig.model_validate({})
    assert (proxy.host, proxy.port) == ("a2", 8888)


@pytest.mark.parametrize(
    ("section", "values", "key", "message"),
    [
        (NotebookConfig, {}, "address", "Field required"),
        (NotebookConfig, {"address": "192.168.0"}, "address", "not a valid IPv4 address"),
        (NotebookConfig, {"address": "224.0.0.1"}, "address", "must be a unicast IPv4 address"),
        (
            NotebookConfig,
            {"address": "192.168.0.100", "memory": 64},
            "memory",
            "greater than or equal to 256",
        ),
        (NotebookConfig, {"address": "192.168.0.100", "token": "x"}, "token", "not permitted"),
        (SshBoxConfig, {"memory": 16}, "memory", "greater than or equal to 64"),
        (SshBoxConfig, {"cpus": 0}, "cpus", "greater than or equal to 0.1"),
        (SshBoxConfig, {"host": "A0"}, "host", "must be a host name"),
        (ProxyConfig, {"port": 80}, "port", "greater than or equal to 1024"),
        (ProxyConfig, {"port": 70000}, "port", "less than or equal to 65535"),
        (ProxyConfig, {"apiPort": "x"}, "apiPort", "valid integer"),
    ],
)
def test_config_refused(section: type[Section], values: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        section.model_validate(values)
    [error] = refused.value.errors()
    assert error["loc"] == (key,)
    assert message in error["msg"]
