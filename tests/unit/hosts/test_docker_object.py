"""A network, volume or container on a host's engine: when it is replaced, looked for and removed."""

from pathlib import Path
from typing import Any

import pytest

from components.hosts import docker_object
from components.hosts.docker_object import DockerObjectProvider
from components.hosts.remote import Answer, HostError
from tests.unit.pretend_host import PretendHost

PROPS: dict[str, Any] = {
    "kind": "network",
    "docker_name": "netv",
    "host": "a0",
    "ssh": "ssh a0",
    "host_container": "1a2b",
    "script": "make it",
    "variables": {"CIDR": "10.0.0.0/16", "NUMBER": 7},
    "limits": {"MEMORY": "64"},
    "location": "a0",
    "made": None,
}
PROVIDER = DockerObjectProvider()
LOOK, REMOVE = docker_object._LOOK, docker_object._REMOVE


def answers(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[tuple[str, dict[str, str]]]:
    """Let the host answer so; return what it is asked."""
    asked: list[tuple[str, dict[str, str]]] = []

    def run(_: str, script: str, variables: dict[str, str], __: float) -> Answer:
        asked.append((script, variables))
        return answer

    monkeypatch.setattr(docker_object, "run", run)
    return asked


def test_docker_object_is_made_with_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, Answer(0, "said\n", ""))
    created = PROVIDER.create(PROPS)
    assert (created.id, created.outs) == ("netv", {**PROPS, "made": "said"})
    variables = {"CIDR": "10.0.0.0/16", "NUMBER": "7", "MEMORY": "64"}
    assert asked == [("make it", {**variables, "HOST": "a0", "KIND": "network", "NAME": "netv"})]


def test_docker_object_that_cannot_be_made_names_host_and_object(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Answer(1, "", "no driver"))
    with pytest.raises(HostError, match="a0: the network netv could not be made: no driver; then"):
        PROVIDER.create(PROPS)


@pytest.mark.parametrize(("kind", "removed"), [("container", True), ("network", False), ("volume", False)])
def test_docker_object_that_cannot_be_made_leaves_no_container(
    kind: str, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, Answer(124, "", "no answer within 120 s"))
    with pytest.raises(HostError, match="no answer within 120 s"):
        PROVIDER.create({**PROPS, "kind": kind})
    assert (asked[-1][0] == REMOVE.read_text()) is removed


@pytest.mark.parametrize(
    ("change", "changes", "replaces"),
    [
        ({}, False, []),
        ({"made": "other"}, False, []),
        ({"limits": {"MEMORY": "128"}}, True, []),
        ({"variables": {"CIDR": "10.1.0.0/16"}}, True, ["variables"]),
        # A host container that is another one, and another way to the same host.
        ({"host_container": "3c4d"}, True, []),
        ({"ssh": "ssh -p 2222 a0"}, True, []),
        ({"script": "make it well"}, True, []),
        ({"location": "a1"}, True, ["location"]),
    ],
)
def test_docker_object_diff(change: dict[str, Any], changes: bool, replaces: list[str]) -> None:
    found = PROVIDER.diff("netv", PROPS, {**PROPS, **change})
    assert (found.changes, found.replaces) == (changes, replaces)


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (Answer(0, "", ""), True),
        (Answer(0, "gone\n", ""), False),
        # The engine or the host does not answer.
        (Answer(1, "", "Cannot connect to the Docker daemon"), True),
        (Answer(255, "", "connection refused"), True),
        (Answer(124, "", "no answer"), True),
    ],
)
def test_docker_object_read(answer: Answer, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, answer)
    assert PROVIDER.read("netv", PROPS).id == ("netv" if there else "")


def test_docker_object_that_cannot_be_removed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Answer(255, "", "no route to host"))
    with pytest.raises(HostError, match="a0: the network netv could not be removed: no route to host"):
        PROVIDER.delete("netv", PROPS)


NO_SUCH = {
    "container": "Error: No such container: x",
    "network": "Error response from daemon: network x not found",
    "volume": "Error: No such volume: x",
}
FAILURES = [
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
    "failed to connect to the docker API at unix:///var/run/docker.sock: connect: no such file or directory",
    'Error response from daemon: failed deleting Network: plugin "calico" not found',
    "bash: docker: command not found",
]


@pytest.mark.parametrize("kind", NO_SUCH)
@pytest.mark.parametrize("script", [LOOK, REMOVE], ids=["look", "remove"])
def test_docker_object_scripts(kind: str, script: Path, tmp_path: Path) -> None:
    variables = {"HOST": "a0", "KIND": kind, "NAME": "x"}
    host = PretendHost(tmp_path)
    host.program("docker", "echo true")
    done = host.run(script, variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    host.program("docker", f"echo '{NO_SUCH[kind]}' >&2; exit 1")
    done = host.run(script, variables)
    assert (done.returncode, done.stdout) == (0, "gone\n" if script == LOOK else "")
    for failure in FAILURES:
        host.program("docker", f"echo '{failure}' >&2; exit 1")
        done = host.run(script, variables)
        assert done.returncode == 1
        assert failure in done.stderr


def test_docker_object_with_a_warning_is_there(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    host.program("docker", "echo WARNING >&2; echo true")
    assert host.run(LOOK, {"HOST": "a0", "KIND": "volume", "NAME": "x"}).stdout == ""


def test_docker_object_container_that_does_not_run_is_gone(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    host.program("docker", "echo false")
    assert host.run(LOOK, {"HOST": "a0", "KIND": "container", "NAME": "x"}).stdout == "gone\n"


def test_docker_object_running_container_is_removed(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    host.program("docker")
    assert host.run(REMOVE, {"HOST": "a0", "KIND": "container", "NAME": "x"}).returncode == 0
    assert host.calls == ["docker container stop x", "docker container rm --force x"]
