"""`provider: existing`: hosts leave the lab or change their addresses, and each is restored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnosis import status
from tests.existing.machines import Machine, given_back, machines
from tests.live.apart import Apart
from tests.live.here import run
from tests.live.waiting import eventually

STACK = "members"
FIREWALL = "CALICO-LAB-INPUT"
"""The chain of the lab's firewall."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    with machines(
        tmp_path_factory.mktemp("members"), [f"172.30.97.{last}" for last in (10, 11, 12)]
    ) as booted:
        yield booted


def config(hosts: dict[str, Machine], **b: Any) -> dict[str, Any]:  # noqa: ANN401 - keys of a member
    """A lab whose host `a` is all of etcd; the others have a firewall, and `b` has the notebook."""
    members: dict[str, dict[str, Any]] = {
        name: {"address": machine.address, "user": "ops", "hostKey": machine.host_key}
        for name, machine in hosts.items()
    }
    if b:
        members["b"].update(b)
    policy = {
        "hosts": [name for name in hosts if name != "a"],
        "rules": [{"action": "drop", "protocol": "tcp", "ports": 9}],
    }
    return {
        "calico-lab:hosts": {
            "provider": "existing",
            "members": members,
            "privateKey": str(hosts["a"].key),
        },
        "calico-lab:etcd": {"members": ["a"], "token": "etcd-members"},
        "calico-lab:network": {"name": "netv", "cidr": "10.97.0.0/16"},
        "calico-lab:firewall": {"policies": {"discard": policy}} if policy["hosts"] else {},
        "calico-lab:notebook": {"host": "b" if "b" in hosts else "a", "address": "10.97.0.100"},
        "calico-lab:sshBox": {"host": "a", "address": "10.97.0.101"},
        "calico-lab:proxy": {"host": "a", "port": 8888},
    }


def protected(machine: Machine) -> bool:
    return any(FIREWALL in rule for rule in machine.rules())


@pytest.mark.timeout(900)
def test_existing_hosts_leave_and_change_address(three: list[Machine], tmp_path: Path) -> None:
    first, second, third = three
    lab = Apart(tmp_path, STACK)
    lab.make()
    before = {machine.name: machine.look() for machine in three}
    key = first.key.read_text().splitlines()[1]

    lab.up(config({"a": first, "b": second}), seconds=420)
    assert protected(second)
    assert key not in lab.texts(), "the operator's key is in the clear"

    # Another way into the same machine.
    second.shell(
        """
        useradd --create-home other
        cp -r /home/ops/.ssh /home/other/
        chown -R other /home/other/.ssh
        echo 'other ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/other
        printf 'Port 22\\nPort 2222\\n' >/etc/ssh/sshd_config.d/other.conf
        systemctl restart ssh
        """
    )
    lab.up(config({"a": first, "b": second}, user="other", port=2222), seconds=300)
    lab.nothing_to_change()
    assert protected(second)

    # Its name for another machine.
    lab.up(config({"a": first, "b": third}), seconds=420)
    lab.nothing_to_change()
    second.shell("rm /etc/sudoers.d/other /etc/ssh/sshd_config.d/other.conf; systemctl restart ssh")
    second.shell("userdel --remove other 2>/dev/null || [ $? = 12 ]")
    eventually(lambda: given_back(second, before[second.name]), seconds=60)
    assert protected(third)
    assert status.findings(status.look(lab.outputs(), STACK)) == []

    # A name for what another name means.
    refused = lab.refused(config({"a": first, "c": third}))
    assert f"hosts.members.c: the host at {third.address} is b of this lab" in refused

    # It does not answer.
    run("docker", "pause", third.name)
    try:
        refused = lab.refused(config({"a": first}))
    finally:
        run("docker", "unpause", third.name)
    assert (
        f"hosts.members: b at {third.address} leaves the lab, and what is on it cannot be removed" in refused
    )

    lab.up(config({"a": first}), seconds=300)
    lab.nothing_to_change()
    eventually(lambda: given_back(third, before[third.name]), seconds=60)
    assert status.findings(status.look(lab.outputs(), STACK)) == []

    # It is gone for good.
    lab.up(config({"a": first, "b": second}), seconds=420)
    run("docker", "stop", "--time", "1", second.name)
    lab.up(config({"a": first, "b": second}, lost=True), seconds=300)
    lab.up(config({"a": first}), seconds=300)
    lab.destroy(180)
    eventually(lambda: given_back(first, before[first.name]), seconds=60)
