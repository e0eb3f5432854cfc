"""A host that is rebooted comes back with everything that it had."""

import shutil
import subprocess

import pytest

from lab import status
from lab.stack import Outputs
from tests.live.program import Program
from tests.live.waiting import eventually


@pytest.mark.timeout(240)
def test_a_rebooted_host_comes_back(outputs: Outputs, program: Program) -> None:
    host = list(outputs.hosts)[1]
    before = status.look(outputs, program.stack)
    assert status.findings(before) == []
    docker = shutil.which("docker")
    assert docker
    subprocess.run([docker, "restart", f"calico-lab-{host}"], capture_output=True, check=True, timeout=90)

    def back() -> None:
        now = status.look(outputs, program.stack)
        assert status.findings(now) == []
        assert now.hosts[host].uptime < before.hosts[host].uptime, f"{host} was not rebooted"
        assert now.hosts[host].units == before.hosts[host].units
        assert now.hosts[host].containers == before.hosts[host].containers

    eventually(back, seconds=120, pause=2)
