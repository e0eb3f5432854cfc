"""`pulumi destroy` leaves nothing of the lab on the controller, and `up` works again afterwards."""

import json

import pytest

from diagnosis import status
from tests.live.here import run
from tests.live.program import QUIET, Program
from workspace import outputs as stack
from workspace.outputs import PROJECT

BRIDGE = "br-calico-lab"
NETWORK = "172.16.6."


def lab_rules() -> list[str]:
    """What the controller's packet filters have about the lab, without counters, in no order.

    Only of the lab: other people's containers come and go on the same engine.
    """
    lines = (run("iptables-save") + run("ip6tables-save")).splitlines()
    return sorted(line for line in lines if BRIDGE in line or "calico" in line.lower() or NETWORK in line)


def left_in_docker(stack_name: str) -> dict[str, str]:
    label = f"label=calico-lab.stack={stack_name}"
    return {
        "containers": run("docker", "ps", "--all", "--quiet", "--filter", label),
        "networks": run("docker", "network", "ls", "--quiet", "--filter", label),
        "volumes": run("docker", "volume", "ls", "--quiet", "--filter", label)
        + run("docker", "volume", "ls", "--quiet", "--filter", "name=calico-lab-"),
    }


@pytest.mark.timeout(420)
def test_destroy_and_up_again(program: Program) -> None:
    before = stack.read(program.stack)
    with_lab = lab_rules()
    assert any(BRIDGE in rule for rule in with_lab)
    assert all(left_in_docker(program.stack).values())

    program.pulumi("destroy", "--yes", "--skip-preview", *QUIET, seconds=120)
    assert left_in_docker(program.stack) == {"containers": "", "networks": "", "volumes": ""}
    assert lab_rules() == []
    links = {link["ifname"] for link in json.loads(run("ip", "-json", "link"))}
    assert BRIDGE not in links
    assert NETWORK not in run("ip", "route")
    assert not (PROJECT / ".state" / "ssh" / program.stack).exists()
    assert program.state()["deployment"].get("resources", []) == []
    with pytest.raises(stack.StackError, match="has no output"):
        stack.read(program.stack)

    program.up(seconds=240)
    again = stack.read(program.stack)
    assert again == before
    assert status.findings(status.look(again, program.stack)) == []
    assert lab_rules() == with_lab
