"""Network policies: which containers reach which, before policies, with them, and after their removal."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.hosts import remote
from diagnosis import status
from tests.live import calico
from tests.live.crowd import Crowd, crowd
from tests.live.policies import BY_HAND, POLICIES, SWITCHED, allowed, reaches
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import Outputs

NOTEBOOK, SSHBOX = "192.168.0.100/8888", "192.168.0.101/22"


@pytest.fixture(scope="module")
def people(outputs: Outputs) -> Iterator[Crowd]:
    with crowd(outputs) as running:
        yield running


def connects(ssh: str, place: str, inside: str = "") -> bool:
    """Whether TCP to a place is answered, from a host or from a container on it."""
    return (
        # The limit is that of the connection alone; on a busy machine a shell in a container starts late.
        remote.run(ssh, f"{inside} timeout 4 bash -c 'exec 3<>/dev/tcp/{place}'", seconds=60).status == 0
    )


def tried(outputs: Outputs) -> dict[str, bool]:
    """Who reaches the notebook and the SSH box, and whom the SSH box reaches."""
    box = "docker exec calico-lab-sshbox"
    return {
        "proxy's host to notebook": connects(outputs.ssh["a2"], NOTEBOOK),
        "another host to notebook": connects(outputs.ssh["a0"], NOTEBOOK),
        "container to notebook": connects(outputs.ssh["a0"], NOTEBOOK, "docker exec red-a0"),
        "container to ssh box": connects(outputs.ssh["a2"], SSHBOX, "docker exec red-a2"),
        "ssh box to its host": connects(outputs.ssh["a0"], f"{outputs.hosts['a0']}/22", box),
        "ssh box to notebook": connects(outputs.ssh["a0"], NOTEBOOK, box),
    }


def kernel_rules(outputs: Outputs) -> dict[str, set[str]]:
    """Calico's rules and sets on each host, without counters, and the names of sets without their members."""
    told = {}
    for host in outputs.hosts:
        answer = remote.run(outputs.ssh[host], "iptables-save 2>/dev/null | grep cali; ipset list -name")
        told[host] = {re.sub(r"\[\d+:\d+\]", "", line).strip() for line in answer.text.splitlines()}
    return told


@pytest.mark.timeout(240)
def test_network_policies_enabled_and_removed(
    people: Crowd, outputs: Outputs, program: Program, tmp_path: Path
) -> None:
    eventually(lambda: reaches(people, people.everything), seconds=20)
    before = kernel_rules(outputs)
    assert all(tried(outputs).values())
    config = program.changed_config(tmp_path, SWITCHED)
    changes = program.preview(config)
    hosts = {"calico-hosts"}
    assert {change.name for change in changes} == {f"network-policy-{name}" for name in POLICIES} | hosts
    try:
        program.up(config)
        calico.apply(outputs, BY_HAND)
        assert calico.names(outputs, "globalnetworkpolicy") == POLICIES
        eventually(lambda: reaches(people, allowed(people)), seconds=20)
        assert tried(outputs) == {
            "proxy's host to notebook": True,
            "another host to notebook": False,
            "container to notebook": False,
            "container to ssh box": True,
            "ssh box to its host": False,
            "ssh box to notebook": False,
        }
        assert status.findings(status.look(outputs, program.stack)) == []
        told = program.pulumi("preview", "--diff", "--non-interactive", "--color", "never")
        for name in POLICIES:
            assert f'"{name}"' in told, "the preview shows what goes"
    finally:
        calico.calicoctl(outputs, "delete --skip-not-exists networkpolicy green-hears-green -n libnetwork")
        program.up()
    assert calico.names(outputs, "globalnetworkpolicy") == set()
    assert calico.names(outputs, "globalnetworkset") == set()
    eventually(lambda: reaches(people, people.everything), seconds=20)
    assert all(tried(outputs).values())

    def as_before() -> None:
        assert kernel_rules(outputs) == before

    eventually(as_before, seconds=30)
