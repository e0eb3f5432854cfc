"""What the services ask the engine for: their containers, where their secrets go, and what they wait for."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks
from pulumi_command import remote

from components.hosts.host import Host
from components.services.config import ProxyConfig, SshBoxConfig
from components.services.health import services_ready
from components.services.image import PROXIES, REGISTRIES, service_image
from components.services.proxy import HttpProxy, Route
from components.services.ssh_box import SshBox
from components.shared.secrets import CertificateAuthority, issue_certificate, make_authority

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
        elif args.typ.endswith((":CertificateAuthority", ":Certificate")):
            known = {"certificate": f"public-{args.name}", "private_key": f"secret-{args.name}"}
        elif args.typ.endswith(":DockerObject"):
            known = {"made": f"{args.name}-made 192.168.7.7"}
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
        ssh_config=pulumi.Output.from_input("config"),
        url=f"ssh://root@{address}:22",
        ready=[],
        container=None,
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
def box() -> Run:
    def program() -> dict[str, Any]:
        config = SshBoxConfig.model_validate({})
        made = SshBox("sshbox", config, host("a0", "10.0.0.1"), network="netv", policy_name="sshBox")
        services_ready("ready", [made.service])
        return {"address": made.address, "key": made.private_key, "host_key": made.host_key}

    return run(program)


ORIGINAL = Route("notebook", "/", "http://192.168.0.100:8888", "a1")
ALICE = Route("alice", "/alice/", "http://192.168.3.4:8888", "a0")


def proxied(config: dict[str, Any], *notebooks: Route) -> Run:
    """Run a program with a proxy."""

    def program() -> dict[str, Any]:
        made = HttpProxy(
            "proxy",
            ProxyConfig.model_validate(config),
            host("a2", "10.0.0.2"),
            notebooks=notebooks,
            authority=CertificateAuthority("authority", "lab"),
        )
        services_ready("ready", [made.service])
        return {"url": made.url, "authority": made.authority, "api_token": made.api_token}

    return run(program)


@pytest.fixture(scope="module")
def proxy() -> Run:
    return proxied({"port": 9000, "apiPort": 9001}, ORIGINAL)


def test_the_ssh_box_takes_a_free_address_when_it_has_none(
    box: Run,
) -> None:
    asked, outputs = box
    assert asked["sshbox"]["variables"]["NETWORK"] == "netv"
    assert asked["sshbox"]["variables"]["ADDRESS"] == ""
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
    assert asked["proxy"]["variables"]["NETWORK"] == "host"
    assert asked["proxy"]["variables"]["READ_ONLY"] == "yes"
    assert asked["proxy"]["variables"]["ENVIRONMENT"].splitlines() == [
        "PROXY_ADDRESS=10.0.0.2",
        "PROXY_PORT=9000",
        "PROXY_API_PORT=9001",
        "PROXY_HTTPS=none",
    ]
    assert outputs["authority"] == ""


def settings_of(asked: dict[str, dict[str, Any]]) -> set[str]:
    """The environment of a proxy."""
    return set(asked["proxy"]["variables"]["ENVIRONMENT"].splitlines())


def routes_of(run: Run) -> dict[str, Any]:
    """The routes.json that a program places."""
    placed = run[0]["a2-proxy"]["create"]
    text = placed.partition("==> /etc/calico-lab/proxy-routes/routes.json\n")[2].partition("\n]}\n")[0]
    routes: dict[str, Any] = json.loads(text + "]}")
    return routes


def test_the_proxy_has_a_route_for_each_notebook() -> None:
    stopped = replace(ALICE, enabled=False)
    routes = routes_of(proxied({}, ORIGINAL, stopped))
    assert routes["notebooks"] == [
        {
            "name": "notebook",
            "path": "/",
            "target": "http://192.168.0.100:8888",
            "host": "a1",
            "enabled": True,
        },
        {
            "name": "alice",
            "path": "/alice/",
            "target": "http://192.168.3.4:8888",
            "host": "a0",
            "enabled": False,
        },
    ]


def test_the_proxy_has_routes_to_places_that_are_outputs() -> None:
    routes = routes_of(proxied({}, replace(ALICE, host=pulumi.Output.from_input("a9"))))
    assert [notebook["host"] for notebook in routes["notebooks"]] == ["a9"]


@pytest.mark.parametrize(
    ("config", "notebooks", "start_page"),
    [
        ({}, [ORIGINAL], False),
        ({}, [ORIGINAL, ALICE], True),
        ({}, [ALICE], True),
        ({}, [], False),
        ({"startPage": True}, [ORIGINAL], True),
        ({"startPage": False}, [ORIGINAL, ALICE], False),
    ],
)
def test_the_proxy_has_a_start_page_where_there_is_a_choice(
    config: dict[str, Any], notebooks: list[Route], start_page: bool
) -> None:
    assert routes_of(proxied(config, *notebooks))["startPage"] is start_page


def test_a_change_of_the_notebooks_or_the_certificate_does_not_replace_the_proxy() -> None:
    secure = {"https": "lab"}
    one, _ = proxied(secure, ORIGINAL)
    two, _ = proxied(secure, ORIGINAL, ALICE)
    assert one["proxy"] == two["proxy"]
    assert one["a2-proxy"] != two["a2-proxy"]
    for folder in ("routes", "tls"):
        mount = f"type=bind,source=/etc/calico-lab/proxy-{folder},target=/run/{folder},readonly"
        assert mount in one["proxy"]["variables"]["MOUNTS"].splitlines()


def test_the_proxy_with_a_certificate_of_the_lab() -> None:
    asked, outputs = proxied({"https": "lab", "name": "lab.example.org", "httpPort": 8081}, ORIGINAL)
    assert asked["proxy-certificate"]["names"] == ["10.0.0.2", "a2", "lab.example.org"]
    assert asked["proxy-certificate"]["usages"] == ["server"]
    assert outputs["url"] == "https://lab.example.org:8888"
    assert outputs["authority"] == "public-authority"
    assert {"PROXY_HTTPS=lab", "PROXY_HTTP_PORT=8081"} <= settings_of(asked)
    pem = "==> /etc/calico-lab/proxy-tls/tls.pem\nsecret-proxy-certificate\npublic-proxy-certificate\n"
    assert pem in str(asked["a2-proxy"]["stdin"])
    assert "secret-" not in asked["a2-proxy"]["create"]


def test_the_proxy_with_a_certificate_of_the_operator(tmp_path: Path) -> None:
    certificate, key = issue_certificate(*make_authority("x"), "lab", ["10.0.0.2"], ["server"])
    (tmp_path / "certificate").write_text(certificate)
    (tmp_path / "key").write_text(key)
    files = {"certificate": str(tmp_path / "certificate"), "key": str(tmp_path / "key")}
    asked, outputs = proxied({"https": "own", "metricsPort": 9002, **files}, ORIGINAL)
    assert "proxy-certificate" not in asked
    assert outputs["url"] == "https://10.0.0.2:8888"
    assert outputs["authority"] == certificate
    assert "PROXY_METRICS_PORT=9002" in settings_of(asked)
    placed = asked["a2-proxy"]
    assert key.strip() in placed["stdin"]["value"]
    assert SECRET in placed["stdin"].values()
    assert "PRIVATE KEY" not in json.dumps({**placed, "stdin": None}) + json.dumps(asked["proxy"])


@pytest.mark.parametrize(
    ("service", "name", "owner", "secrets", "files"),
    [
        ("proxy", "proxy", "8001:8001", {"api-token": "secret-proxy-api-token"}, {}),
        (
            "box",
            "sshbox",
            "0:0",
            {"host_key": "secret-sshbox-host-key"},
            {"authorized_keys": "ssh-ed25519 sshbox-admin-key"},
        ),
    ],
    ids=["proxy", "sshbox"],
)
def test_secrets_of_a_service_are_in_files_and_nowhere_else(  # noqa: PLR0917 - a table
    service: str,
    name: str,
    owner: str,
    secrets: dict[str, str],
    files: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    asked, _ = request.getfixturevalue(service)
    (placed,) = [inputs for resource, inputs in asked.items() if resource.endswith(f"-{name}")]
    folder = f"/etc/calico-lab/{name}"
    for file, content in secrets.items():
        assert f"==> {folder}/{file}\n{content}\n" in str(placed["stdin"])
        assert content not in placed["create"]
    for file, content in files.items():
        assert f"==> {folder}/{file}\n{content}\n" in placed["create"]
    assert f"OWNER={owner}\n" in placed["create"]
    assert f"COMPONENT={name}\n" in placed["delete"]
    for file in (*secrets, *files):
        mount = f"type=bind,source={folder}/{file},target=/run/secrets/{file},readonly"
        assert mount in asked[name]["variables"]["MOUNTS"].splitlines()
    assert "secret-" not in json.dumps(asked[name])


@pytest.mark.parametrize(("service", "name"), [("box", "sshbox"), ("proxy", "proxy")])
def test_a_container_has_its_image_and_limits(
    service: str, name: str, request: pytest.FixtureRequest
) -> None:
    asked, _ = request.getfixturevalue(service)
    container = asked[name]
    assert (container["kind"], container["docker_name"]) == ("container", f"calico-lab-{name}")
    assert container["variables"]["IMAGE"] == ARRIVED
    assert int(container["limits"]["MEMORY"]) > 0
    assert float(container["limits"]["CPUS"]) > 0


def test_a_new_key_makes_a_new_container() -> None:
    files = []
    for name in ("one", "two"):

        def program(name: str = name) -> dict[str, Any]:
            SshBox(
                name, SshBoxConfig.model_validate({}), host("a1", "10.0.0.1"), network="netv", policy_name="b"
            )
            return {}

        asked, _ = run(program)
        assert asked[name]["variables"]["STACK"] == "lab"
        files.append(asked[name]["variables"]["FILES"])
    assert files[0] != files[1]


@pytest.mark.parametrize("service", ["box", "proxy"])
def test_services_are_checked_again_when_a_container_is_replaced(
    service: str, request: pytest.FixtureRequest
) -> None:
    asked, _ = request.getfixturevalue(service)
    [container] = [name for name, inputs in asked.items() if inputs.get("kind") == "container"]
    gate = asked["ready"]
    assert gate["triggers"] == [f"{container}-made 192.168.7.7"]
    assert [check["variables"] for check in gate["checks"]] == [{"CONTAINER": f"calico-lab-{container}"}]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images" / "notebook").mkdir(parents=True)
    (tmp_path / "images" / "notebook" / "Dockerfile").write_text("ARG PIP_INDEX_URL\n")
    monkeypatch.chdir(tmp_path)
    for name in (*PROXIES, *REGISTRIES):
        monkeypatch.delenv(name, raising=False)


def image() -> Run:
    def program() -> dict[str, Any]:
        return {"id": service_image("notebook", host("a1", "10.0.0.1"))}

    return run(program)


@pytest.mark.usefixtures("project")
def test_an_image_is_built_on_the_controller_and_loaded_by_one_command() -> None:
    asked, outputs = image()
    assert list(asked) == ["a1-notebook-image"]
    command = asked["a1-notebook-image"]
    assert command["environment"] == {
        "IMAGE": "calico-lab/notebook:latest",
        "CONTEXT": "images/notebook",
        "HOST": "a1",
        "DESTINATION": "ssh://root@10.0.0.1:22",
        "SSH_CONFIG": "config",
        "BUILD_ARGUMENTS": "",
    }
    assert "docker build" in command["create"]
    assert "docker image rm" in command["delete"]
    assert outputs == {"id": ARRIVED}


@pytest.mark.usefixtures("project")
def test_an_image_is_built_again_when_its_folder_changes(tmp_path: Path) -> None:
    before, _ = image()
    (tmp_path / "images" / "notebook" / "added").touch()
    after, _ = image()
    triggers = [asked["a1-notebook-image"]["triggers"] for asked in (before, after)]
    assert triggers[0] != triggers[1]


@pytest.mark.usefixtures("project")
def test_an_image_is_replaced_for_another_registry_and_not_for_another_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An update leaves the image before on the host; the proxies that a build goes through change no image.
    triggers = []
    for name, value in (("NO_PROXY", "a"), ("NO_PROXY", "b"), ("PIP_INDEX_URL", "c")):
        monkeypatch.setenv(name, value)
        triggers.append(image()[0]["a1-notebook-image"]["triggers"])
    assert triggers[0] == triggers[1] != triggers[2]


@pytest.mark.usefixtures("project")
def test_a_registry_is_a_secret_because_its_url_may_hold_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "mirror")
    asked, _ = image()
    environment = asked["a1-notebook-image"]["environment"]
    assert SECRET in environment.values(), "all of it is a secret because one value is"
    assert environment["value"]["BUILD_ARGUMENTS"] == "PIP_INDEX_URL"
    assert environment["value"]["PIP_INDEX_URL"] == "mirror"
