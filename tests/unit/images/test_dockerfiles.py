"""Rules that the Dockerfiles and lock files of the images keep."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from components.notebooks import work
from components.services import proxy

PROJECT = Path(__file__).resolve().parents[3]
IMAGES = PROJECT / "images"
SERVICES = ("notebook", "proxy", "sshbox")
WRITTEN = sorted(path for path in IMAGES.rglob("*") if path.is_file() and "lock" not in path.name)
COMPONENTS = sorted(path.parent.name for path in (PROJECT / "components").glob("*/component.py"))


def instructions(image: str) -> list[str]:
    """A Dockerfile's instructions, a line each, without comments."""
    text = (IMAGES / image / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line for line in joined.splitlines() if line]


def final_stage(image: str) -> list[str]:
    lines = instructions(image)
    last = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    return lines[last:]


def apt_packages(image: str) -> set[str]:
    lists = re.findall(
        r"apt-get install -qq --no-install-recommends ([^;>]*)", "\n".join(instructions(image))
    )
    return {package for found in lists for package in found.split()}


@pytest.mark.parametrize("image", ["host", *SERVICES])
def test_dockerfile_keeps_no_authority_of_the_controller(image: str) -> None:
    assert not [line for line in final_stage(image) if "--from=ca" in line or "ca-certificates.crt" in line]


@pytest.mark.parametrize("image", ["host", *SERVICES])
def test_dockerfile_base_is_an_argument(image: str) -> None:
    lines = instructions(image)
    stages = re.findall(r" AS (\w+)$", "\n".join(lines), re.MULTILINE)
    bases = {line.split()[1] for line in lines if line.startswith("FROM ")}
    assert bases <= {"${BASE}", "${CA}", "scratch", *stages}
    release = "trixie" if image == "host" else "bookworm"
    assert f"ARG BASE=calico-lab/debian:{release}" in lines


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_dockerfile_names_no_registry(path: Path) -> None:
    named = re.findall(r"https?://(?!127\.0\.0\.1|\$\{)\S+", path.read_text())
    assert named == []


@pytest.mark.parametrize("image", SERVICES)
def test_dockerfile_has_health_check(image: str) -> None:
    assert [line for line in final_stage(image) if line.startswith("HEALTHCHECK --interval")]


def test_dockerfile_user_owns_its_files() -> None:
    text = "\n".join(final_stage("notebook"))
    assert f"useradd --uid {work.USER} --user-group --create-home --shell /bin/bash notebook" in text
    assert "USER notebook" in text
    assert f"USER {proxy.USER}:{proxy.USER}" in final_stage("proxy")


def test_dockerfile_of_host_has_packages_and_masks() -> None:
    declared = {name: import_module(f"components.{name}.component") for name in COMPONENTS}
    packages = {package for module in declared.values() for package in getattr(module, "PACKAGES", ())}
    masks = {unit for module in declared.values() for unit in getattr(module, "MASKED_UNITS", ())}
    assert {"docker.io|dockerd", "etcd-server", "bird2"} <= packages
    assert {package.partition("|")[0] for package in packages} - apt_packages("host") == set()
    masked = "\n".join(line for line in instructions("host") if "/dev/null" in line)
    assert {unit for unit in masks if unit not in masked} == set()


def test_sshd_config_keys_only_no_root() -> None:
    settings = (IMAGES / "sshbox" / "sshd_config").read_text().splitlines()
    for setting in ("PermitRootLogin no", "PasswordAuthentication no", "AllowUsers admin"):
        assert setting in settings
    assert "HostKey /run/secrets/host_key" in settings


@pytest.mark.parametrize(
    "lock", sorted(IMAGES.glob("*/*.lock")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_python_packages_locked_by_hash(lock: Path) -> None:
    text = re.sub(r"\A#.*\n", "", lock.read_text())
    requirements = re.split(r"\n(?=[a-z])", text)
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+==\S+( ;[^\\]*)? \\\n    --hash=sha256:", requirement), requirement
    dockerfile = (lock.parent / "Dockerfile").read_text()
    assert re.search(rf"--require-hashes[\\\s]+--requirement /{lock.name}", dockerfile)


def test_node_packages_locked_by_hash() -> None:
    packages = json.loads((IMAGES / "proxy" / "package-lock.json").read_text())["packages"]
    dependencies = {name: package for name, package in packages.items() if name}
    assert dependencies["node_modules/configurable-http-proxy"]["version"] == "5.3.0"
    for name, package in dependencies.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
