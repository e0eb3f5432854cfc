"""Dynamic providers with unknown inputs: an unknown, alone or nested, is neither a value nor a text."""

import asyncio
import importlib
import pkgutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from pulumi import dynamic
from pulumi.output import UNKNOWN
from pulumi.runtime import rpc

import components
from components.calico.attached import _AttachedProvider
from components.calico.settings import _NetworkSettingsProvider
from components.etcd.membership import _MembershipProvider
from components.firewall.host_firewall import HostFirewallProvider
from components.hosts.docker_object import DockerObjectProvider
from components.hosts.ssh import _SshAccessProvider
from components.notebooks.container import _ContainerProvider
from components.notebooks.work import _WorkProvider
from components.readiness.gate import GateProvider
from components.services.placement import _PlacementProvider
from components.shared.provider import StoringProvider, is_known
from components.shared.secrets import _CertificateProvider, issue_certificate, make_authority
from tests.unit.calico.test_settings import MODE
from tests.unit.firewall.test_host_firewall import PROPS as FIREWALL

_AUTHORITY, _KEY = make_authority("authority")
_CERTIFICATE, _ = issue_certificate(_AUTHORITY, _KEY, "a0", [], ["client"])
NAMES = [
    line
    for line in Path(__file__).with_name("provider-names.txt").read_text().splitlines()
    if not line.startswith("#")
]
PROVIDERS: dict[str, tuple[dynamic.ResourceProvider, dict[str, Any]]] = {
    "network-settings": (_NetworkSettingsProvider(), MODE),
    "membership": (
        _MembershipProvider(),
        {
            "token": "t",
            "members": {"a0": "https://172.16.6.44:2380"},
            "hosts": {},
            "client_port": 2379,
            "ssh_config": "config",
        },
    ),
    "firewall": (HostFirewallProvider(), FIREWALL),
    "gate": (
        GateProvider(),
        {
            "script": "",
            "checks": [
                {
                    "host": "a0",
                    "address": "172.16.6.44",
                    "variables": {"ENDPOINT": "https://172.16.6.44:2379"},
                    "peers": {"a1": "172.16.6.218"},
                }
            ],
            "ssh": {"a0": "ssh a0", "a1": "ssh a1"},
            "seconds": 1,
            "port": 2380,
            "triggers": ["digest"],
        },
    ),
    "attached": (
        _AttachedProvider(),
        {"script": "", "network": "netv", "hosts": ["a0"], "ssh": {"a0": "ssh a0"}},
    ),
    "ssh-access": (
        _SshAccessProvider(),
        {
            "folder": ".state/ssh/none",
            "hosts": [{"alias": "a0", "address": "172.16.6.44", "port": 22, "user": "root", "host_key": "k"}],
            "private_key": "key",
        },
    ),
    "work": (
        _WorkProvider(),
        {
            **{
                "host": "a0",
                "location": "a0",
                "ssh": "ssh a0",
                "container": "n",
                "notebook": "n",
                "stack": "lab",
            },
            "restore": "latest",
        },
    ),
    "notebook-container": (_ContainerProvider(), {"network": "netv", "image": "i", "memory": 512.0}),
    "docker-object": (
        DockerObjectProvider(),
        {
            **{"kind": "network", "docker_name": "netv", "host": "a0", "ssh": "ssh a0", "script": ""},
            **{
                "host_container": "id",
                "variables": {"CIDR": "10.0.0.0/16"},
                "limits": {},
                "location": "a0",
            },
        },
    ),
    "placement": (_PlacementProvider(), {"container": "notebook", "host": "a1", "folder": "/work"}),
    "certificate": (
        _CertificateProvider(),
        {
            "authority": _AUTHORITY,
            "authority_key": _KEY,
            "common_name": "a0",
            "names": ["a0"],
            "usages": ["client"],
            "certificate": _CERTIFICATE,
        },
    ),
}


def with_unknowns(value: Any) -> Iterator[Any]:  # noqa: ANN401 - a JSON value
    """The value with each of its parts unknown in turn, and then the whole."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in with_unknowns(part))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in with_unknowns(part))
    yield UNKNOWN


def properties_with_unknowns(props: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in props.items():
        for other in with_unknowns(value):
            yield key, {**props, key: other}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What providers run on hosts; every host is silent."""
    seen: list[str] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[Any]:  # noqa: ANN401
        seen.append(f"{command} {how.get('input')!r}")
        empty = "" if how.get("text") else b""
        return subprocess.CompletedProcess(command, 255, empty, empty)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("existed", [False, True], ids=["from-nothing", "from-a-state"])
def test_provider_check_keeps_unknowns(
    name: str, existed: bool, commands: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    provider, props = PROVIDERS[name]
    for _, news in properties_with_unknowns(props):
        result = provider.check(deepcopy(props) if existed else {}, news)
        # A provider may add to them.
        assert {key: result.inputs[key] for key in news} == news
        assert result.failures == []
    told = capfd.readouterr()
    assert not [text for text in [*commands, told.err, told.out] if "Unknown object" in text]


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_diff_of_an_unknown(name: str) -> None:
    provider, props = PROVIDERS[name]
    for key, news in properties_with_unknowns(props):
        changed = provider.diff("id", props, {**props, key: "another value"}).changes
        if key not in ("certificate", "folder"):
            assert provider.diff("id", props, news).changes == changed, key


def test_is_known(own_loop: asyncio.AbstractEventLoop) -> None:
    wire = struct_pb2.Struct()
    wire.update({"known": "a", "unknown": rpc.UNKNOWN, "deep": {"list": ["a", rpc.UNKNOWN]}})
    given = rpc.deserialize_properties(wire, keep_unknowns=True)
    assert {key: is_known(value) for key, value in given.items()} == {
        "known": True,
        "unknown": False,
        "deep": False,
    }
    back = own_loop.run_until_complete(rpc.serialize_properties(dict(given), {}))
    assert back["unknown"] == rpc.UNKNOWN


@pytest.mark.parametrize("name", NAMES)
def test_provider_of_an_earlier_state_is_found(name: str) -> None:
    module, _, provider = name.partition(":")
    assert issubclass(getattr(importlib.import_module(module), provider), dynamic.ResourceProvider)


def test_provider_names_are_complete() -> None:
    for module in pkgutil.walk_packages(components.__path__, "components."):
        importlib.import_module(module.name)
    assert _providers(dynamic.ResourceProvider) - set(NAMES) == set()


def _providers(base: type) -> set[str]:
    """The names of the classes below one that resources have as their providers."""
    below: list[type] = base.__subclasses__()
    own = {f"{one.__module__}:{one.__qualname__}" for one in below if one != StoringProvider}
    names = own.union(*map(_providers, below))
    return {name for name in names if name.startswith("components.")}
