"""The isolation of students, switched as its component does it, and what it allows."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from components.calico import component
from components.calico.isolation import POLICY, Isolation, render_isolation
from components.calico.policy_rendering import HOST_LABEL
from components.hosts import remote
from tests.live import calico
from tests.live.crowd import Crowd, Reach
from workspace.outputs import Outputs

TEAMS = {"ada": "calico-lab.role=student", "ben": "calico-lab.role=student", "web": ""}
"""Two students on each host, and a container that is none."""
STUDENTS = ("ada", "ben")
PORT = 8888
_SCRIPTS = Path(component.__file__).with_name("scripts")


@contextmanager
def isolated(outputs: Outputs, proxy: str) -> Iterator[None]:
    """Isolate students, with the proxy on a host, and no longer at the end."""
    cidr = IPv4Network(calico.resources(outputs, "ippool")[0]["spec"]["cidr"])
    try:
        told(outputs)
        for document in yaml.safe_load_all(render_isolation(Isolation([proxy], PORT), cidr)):
            calico.apply(outputs, document)
        yield
    finally:
        _run(outputs, "remove-policy.sh", POLICY=POLICY)
        _run(outputs, "remove-hosts.sh")


def told(outputs: Outputs) -> None:
    """Have policies know the hosts."""
    _run(outputs, "hosts.sh", HOST_LABEL=HOST_LABEL)


def allowed(people: Crowd) -> Reach:
    """What isolation leaves open."""

    def student(name: str) -> bool:
        return name.partition("-")[0] in STUDENTS

    return frozenset(flow for flow in people.everything if not (student(flow[0]) and student(flow[1])))


def _run(outputs: Outputs, script: str, **variables: str) -> None:
    host, ssh = next(iter(outputs.ssh.items()))
    hosts = " ".join(f"{name}={address}" for name, address in outputs.hosts.items())
    answer = remote.run(ssh, (_SCRIPTS / script).read_text(), {"HOST": host, "HOSTS": hosts, **variables})
    assert answer.status == 0, answer.error
