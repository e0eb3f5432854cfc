"""A rebooted host has all its services and containers again, the endpoints with their labels."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.guests import guests
from components.hosts import remote
from diagnosis import facts, status
from tests.live import agreement
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import Outputs

ADDRESS = "192.168.79.10"
STEADY = Path(__file__).with_name("steady.sh").read_text()


@pytest.mark.timeout(300)
def test_reboot_of_a_host(outputs: Outputs, program: Program) -> None:
    host = list(outputs.hosts)[1]
    name = f"calico-lab-steady-{host}"
    variables = {"NAME": name, "NETWORK": outputs.network, "ADDRESS": ADDRESS}
    # The guest on another host brings the image there, and asks the container afterwards.
    with guests(outputs, list(outputs.hosts)[:2]) as guest:
        try:
            started = remote.run(outputs.ssh[host], STEADY, variables)
            assert started.status == 0, started.error
            restart(outputs, program, host)
            labelled(outputs, host)
            next(iter(guest.values())).run(f"ping -c 10 -W 2 {ADDRESS}")
            eventually(lambda: agreement.check(outputs), seconds=60, pause=1)
        finally:
            remote.run(outputs.ssh[host], f"docker rm --force {name}")


def restart(outputs: Outputs, program: Program, host: str) -> None:
    """Reboot a host, and wait until it has everything that it had."""
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
        # A guest has no restart policy.
        assert lasting(now, host) == lasting(before, host)

    eventually(back, seconds=120, pause=2)


def lasting(seen: status.Status, host: str) -> list[facts.Container]:
    """The containers of a host that have to come back."""
    return [one for one in seen.hosts[host].containers if one.name != f"calico-lab-guest-{host}"]


def labelled(outputs: Outputs, host: str) -> None:
    """The container is an endpoint of its host, with its labels, as soon as it is back."""

    def check() -> None:
        datastore, _ = agreement.look(outputs)
        found = [one for one in datastore.endpoints.values() if ADDRESS in one.addresses]
        assert len(found) == 1, found
        [endpoint] = found
        assert endpoint.node == host
        assert endpoint.labels.get("churn") == "steady"

    eventually(check, seconds=90)
