"""What the services ask the engine for: their containers, where their secrets go, and what they wait for."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker
import pytest
from pulumi.runtime import mocks
from pulumi_command import remote

from components.hosts.files import render
from components.hosts.host import Host
from components.services.config import NotebookConfig, ProxyConfig, SshBoxConfig
from components.services.image import PROXIES, REGISTRIES, ServiceImage
from components.services.notebook import NotebookService
from components.services.proxy import HttpProxy
from components.services.ssh_box import SshBox

BUILT = "sha256:built"
ARRIVED = "sha256:arrived"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
"""How the engine's protocol marks a secret."""


Run = tuple[dict[str, dict[str, Any]], dict[str, Any]]
"""What a program asked for, by resource name, and what its outputs come to."""


@dataclass
class Engine(mocks.Mocks):
    """Makes everything, and remembers what it was asked for by name."""

    asked: dict[str, dict[str, Any]] = field(default_factory=dict)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """Make a resource."""
        self.asked[args.name] = args.inputs
        known: dict[str, Any] = {}
        if args.typ.endswith(":Token"):
            known = {"value": f"secret-{args.name}"}
        elif args.typ.endswith(":SshKey"):
            known = {"private_key": f"secret-{args.name}", "public_key": f"ssh-ed25519 {args.name}"}
        elif args.typ.endswith(":RemoteImage"):
            known = {"imageId": BUILT}
        elif args.typ.endswith(":Container"):
            known = {"networkDatas": [{"ipAddress": "192.168.7.7"}]}
        elif args.typ.endswith(":Command"):
            known = {"stdout": ARRIVED}
        return f"{args.name}-id", {**args.inputs, **known}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        """Refuse: nothing is asked while the program runs."""
        raise AssertionError(f"the program asks {args.token} while it runs")


def host(name: str, address: str) -> Host:
    connection = remote.ConnectionArgs(host=address)
    return Host(
        name=name,
        address=address,
        user="root",
        connection=connection,
        ssh="ssh",
        url=f"ssh://root@{address}:22",
        ready=[],
        machine=None,
    )


def run(program: Callable[[], dict[str, Any]]) -> Run:
    """Run a program; return what it asked for, by resource name, and what its outputs come to."""
    engine = Engine()
    outputs: dict[str, Any] = {}
    mocks.set_mocks(engine, "calico-lab", "lab")

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def main() -> pulumi.Output[Any]:
        return pulumi.Output.all(**program()).apply(outputs.update)

    main()
    return engine.asked, outputs


@pytest.fixture(scope="module")
def notebook() -> Run:
    def program() -> dict[str, Any]:
        config = NotebookConfig.model_validate({"address": "192.168.0.100", "memory": 512})
        made = NotebookService("notebook", config, host("a1", "10.0.0.1"), image=ARRIVED, network="netv")
        return {"target": made.target, "url": made.url, "token": made.token}

    return run(program)


@pytest.fixture(scope="module")
def box() -> Run:
    def program() -> dict[str, Any]:
        config = SshBoxConfig.model_validate({})
        made = SshBox("sshbox", config, host("a0", "10.0.0.1"), image=ARRIVED, network="netv")
        return {"address": made.address, "key": made.private_key, "host_key": made.host_key}

    return run(program)


@pytest.fixture(scope="module")
def proxy() -> Run:
    def program() -> dict[str, Any]:
        config = ProxyConfig.model_validate({"port": 9000, "apiPort": 9001})
        target = "http://192.168.0.100:8888"
        made = HttpProxy("proxy", config, host("a2", "10.0.0.2"), image=ARRIVED, target=target)
        return {"url": made.url, "api_token": made.api_token}

    return run(program)


def test_the_notebook_is_at_its_address(
    notebook: Run,
) -> None:
    asked, outputs = notebook
    assert asked["notebook"]["networksAdvanced"] == [{"name": "netv", "ipv4Address": "192.168.0.100"}]
    assert outputs["url"] == outputs["target"] == "http://192.168.0.100:8888"
    assert outputs["token"] == "secret-notebook-token"


def test_the_notebooks_work_outlives_it(notebook: Run) -> None:
    asked, _ = notebook
    assert asked["notebook-work"]["name"] == "calico-lab-notebook-work"
    assert {
        "type": "volume",
        "source": "calico-lab-notebook-work",
        "target": "/home/notebook/work",
    } in asked["notebook"]["mounts"]


def test_the_ssh_box_takes_a_free_address_when_it_has_none(
    box: Run,
) -> None:
    asked, outputs = box
    assert asked["sshbox"]["networksAdvanced"] == [{"name": "netv"}]
    assert outputs == {
        "address": "192.168.7.7",
        "key": "secret-sshbox-admin-key",
        "host_key": "ssh-ed25519 sshbox-host-key",
    }


def test_the_proxy_listens_at_its_hosts_address(
    proxy: Run,
) -> None:
    asked, outputs = proxy
    assert outputs["url"] == "http://10.0.0.2:9000"
    assert asked["proxy"]["networkMode"] == "host"
    assert asked["proxy"]["envs"] == [
        "PROXY_ADDRESS=10.0.0.2",
        "PROXY_PORT=9000",
        "PROXY_API_PORT=9001",
        "PROXY_TARGET=http://192.168.0.100:8888",
    ]


@pytest.mark.parametrize(
    ("service", "name", "files"),
    [
        ("notebook", "notebook", {"token": ("secret-notebook-token", "8888:8888", "0400")}),
        ("proxy", "proxy", {"api-token": ("secret-proxy-api-token", "8001:8001", "0400")}),
        (
            "box",
            "sshbox",
            {
                "host_key": ("secret-sshbox-host-key", "0:0", "0400"),
                "authorized_keys": ("ssh-ed25519 sshbox-admin-key", "0:0", "0444"),
            },
        ),
    ],
)
def test_secrets_are_in_files_and_nowhere_else(
    service: str, name: str, files: dict[str, tuple[str, str, str]], request: pytest.FixtureRequest
) -> None:
    asked, _ = request.getfixturevalue(service)
    placed = {
        resource.partition(f"-{name}-")[2]: inputs for resource, inputs in asked.items() if "stdin" in inputs
    }
    assert placed.keys() == files.keys()
    for file, (content, owner, mode) in files.items():
        path = f"/etc/calico-lab/{name}/{file}"
        assert placed[file]["stdin"] == render({path: content})
        for setting in (owner, mode):
            assert setting in placed[file]["create"]
        assert {
            "type": "bind",
            "source": path,
            "target": f"/run/secrets/{file}",
            "readOnly": True,
        } in asked[name]["mounts"]
    assert "secret-" not in json.dumps(asked[name])


@pytest.mark.parametrize(
    ("service", "name"), [("notebook", "notebook"), ("box", "sshbox"), ("proxy", "proxy")]
)
def test_a_container_is_bounded_and_comes_back(
    service: str, name: str, request: pytest.FixtureRequest
) -> None:
    asked, _ = request.getfixturevalue(service)
    container = asked[name]
    assert container["name"] == f"calico-lab-{name}"
    assert container["image"] == ARRIVED
    assert container["memory"] == container["memorySwap"] > 0
    assert float(container["cpus"]) > 0
    assert container["restart"] == "unless-stopped"
    assert container["capabilities"]["drops"] == ["ALL"]
    assert container["logOpts"] == {"max-size": "10m", "max-file": "2"}
    assert "privileged" not in container


def test_a_new_token_makes_a_new_container() -> None:
    labels = []
    for name in ("one", "two"):

        def program(name: str = name) -> dict[str, Any]:
            config = NotebookConfig.model_validate({"address": "192.168.0.100"})
            NotebookService(name, config, host("a1", "10.0.0.1"), image=ARRIVED, network="netv")
            return {}

        asked, _ = run(program)
        labels.append({label["label"]: label["value"] for label in asked[name]["labels"]})
    assert labels[0]["calico-lab.stack"] == labels[1]["calico-lab.stack"] == "lab"
    assert labels[0]["calico-lab.files"] != labels[1]["calico-lab.files"]


@pytest.mark.parametrize("service", ["notebook", "box", "proxy"])
def test_the_gate_is_passed_anew_by_a_new_container(service: str, request: pytest.FixtureRequest) -> None:
    asked, _ = request.getfixturevalue(service)
    [gate] = [inputs for name, inputs in asked.items() if name.endswith("-ready")]
    [container] = [name for name, inputs in asked.items() if "mounts" in inputs]
    assert gate["triggers"] == [f"{container}-id"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images" / "notebook").mkdir(parents=True)
    (tmp_path / "images" / "notebook" / "Dockerfile").write_text("ARG PIP_INDEX_URL\n")
    monkeypatch.chdir(tmp_path)
    for name in (*PROXIES, *REGISTRIES):
        monkeypatch.delenv(name, raising=False)


def image() -> Run:
    def program() -> dict[str, Any]:
        controller = docker.Provider("controller")
        hosts = [host("a0", "10.0.0.0"), host("a1", "10.0.0.1")]
        made = ServiceImage("notebook", "images/notebook", hosts, ssh_config="config", controller=controller)
        return dict(made.image_ids)

    return run(program)


@pytest.mark.usefixtures("project")
def test_an_image_is_built_on_the_controller_and_brought_to_every_host() -> None:
    asked, ids = image()
    built = asked["notebook-image"]
    assert built["name"] == "calico-lab/notebook:latest"
    assert built["keepLocally"] is True
    assert built["build"]["context"] == "images/notebook"
    assert built["build"]["useLegacyBuilder"] is True
    assert len(built["triggers"]["context"]) == 64
    for name in ("a0", "a1"):
        transfer = asked[f"{name}-notebook-image"]
        assert transfer["environment"] == {
            "IMAGE": "calico-lab/notebook:latest",
            "IMAGE_ID": BUILT,
            "HOST": name,
            "DESTINATION": f"ssh://root@10.0.0.{name[1:]}:22",
            "SSH_CONFIG": "config",
        }
        assert transfer["triggers"] == [BUILT]
    assert ids == {"a0": ARRIVED, "a1": ARRIVED}


@pytest.mark.usefixtures("project")
def test_a_registry_is_a_secret_because_its_url_may_hold_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "mirror")
    asked, _ = image()
    build = asked["notebook-image"]["build"]
    assert SECRET in build.values()
    assert build["value"]["buildArgs"] == {"PIP_INDEX_URL": "mirror"}
