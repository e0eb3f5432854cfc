"""The lab of the tables of cases, and functions that read a case."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from components.firewall.rules.config import FirewallConfig
from components.firewall.rules.lab_hosts import HostAddress, LabHosts

CASES = Path(__file__).parent / "cases"
LAB = LabHosts(
    hosts={
        "a0": HostAddress("172.16.6.44"),
        "a1": HostAddress("172.16.6.218"),
        "a2": HostAddress("172.16.6.231"),
    },
    others={"visitor": HostAddress("172.16.6.66", "02:42:ac:10:06:42")},
    operator=(ip_address("172.16.6.1"),),
)


def names(folder: str) -> list[str]:
    """The names of the cases of one table."""
    return sorted(path.stem for path in (CASES / folder).glob("*.json"))


def case(folder: str, name: str) -> dict[str, Any]:
    """One case."""
    document: dict[str, Any] = json.loads((CASES / folder / f"{name}.json").read_text())
    return document


def config(document: dict[str, Any]) -> FirewallConfig:
    """The section `firewall` of a case."""
    return FirewallConfig.model_validate(document["config"])
