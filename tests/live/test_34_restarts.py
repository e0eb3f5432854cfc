"""Docker and Calico restarted and the host rebooted, in each order: every policy decides as before.

Meanwhile another host tries a closed port all the time, and never gets through.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.hosts import remote
from diagnosis import status
from tests.live import scene
from tests.live.program import Program
from tests.live.scene import OPEN, SENDERS, TARGET, everything, seen
from tests.live.waiting import eventually
from workspace import outputs as stack
from workspace.outputs import Outputs

PUBLISHED = 8081
POLICY = "published"
CONTAINER = "lab-test-published"
# The shortest sequence that contains each order of the three.
SEQUENCE = ["docker", "calico", "reboot", "docker", "calico", "docker", "reboot", "calico", "docker"]
RESTARTS = {
    "docker": "systemctl restart docker",
    "calico": "systemctl restart calico-lab-calico.target",
}
DECISIONS = {
    # By reject-address.
    "visitor": everything("refused", PUBLISHED),
    # By reject-mac; the published port by nothing.
    "visitor with another address": {**everything("refused"), f"tcp/{PUBLISHED}": "open"},
    # By only-http.
    "a1": {**OPEN, "tcp/22": "silent", "ping": "silent", f"tcp/{PUBLISHED}": "open"},
}
# The SSH box's image has what a server needs.
PUBLISH = f"""
image=$(docker inspect --format '{{{{.Image}}}}' "$(docker ps --quiet --filter name=sshbox)")
docker run --detach --init --restart always --name {CONTAINER} --publish {PUBLISHED}:{PUBLISHED} \\
    "$image" nc -l -k 0.0.0.0 {PUBLISHED} >/dev/null
"""
OTHER = "a1"
TRYING = "/tmp/lab-test-trying"  # noqa: S108 - the host's own
# Five tries a second, of which one that gets through leaves a line. What is dropped costs no answer: a host
# sends one ICMP message a second to an address (icmp_ratelimit, icmp(7)), and the decisions need those.
TRY_ALL_THE_TIME = f"""
touch {TRYING}
for _ in 1 2 3 4 5; do
    while [ -e {TRYING} ]; do nc -z -w 1 {{target}} 22 && echo through; sleep 0.1; done &
    sleep 0.2
done
wait
"""


@pytest.fixture
def every_policy(outputs: Outputs, program: Program, tmp_path: Path) -> Iterator[Outputs]:
    """The lab with all of the exercises, one policy about a published port, and something to reach."""
    policies: set[str] = set()

    def edit(firewall: dict[str, Any]) -> None:
        for policy in firewall["policies"].values():
            policy["enabled"] = True
        rule = {"action": "reject", "source": "visitor", "protocol": "tcp", "ports": PUBLISHED}
        firewall["policies"][POLICY] = {"hosts": [TARGET], "appliesTo": "published", "rules": [rule]}
        policies.update(firewall["policies"])

    config = program.edited_config(tmp_path, "firewall", edit)
    scene.set_up(outputs)
    published = remote.run(outputs.ssh[TARGET], PUBLISH)
    try:
        assert published.status == 0, published.error
        open_to_all = dict.fromkeys(SENDERS, everything("open", PUBLISHED))
        eventually(lambda: same(outputs, open_to_all), seconds=20)
        program.up(config)
        now = stack.read(program.stack)
        assert set(now.firewall[TARGET]) == policies
        yield now
    finally:
        program.up()
        remote.run(outputs.ssh[TARGET], f"docker rm --force {CONTAINER}")
        scene.take_down(outputs)


def same(outputs: Outputs, decisions: scene.Flows) -> None:
    assert seen(outputs, PUBLISHED) == decisions


def restart(outputs: Outputs, what: str) -> None:
    """Restart it, and have again what only listens until a reboot."""
    if what == "reboot":
        command = ["docker", "restart", f"calico-lab-{TARGET}"]
        subprocess.run(command, capture_output=True, check=True, timeout=90)
        eventually(lambda: reachable(outputs), seconds=60)
        scene.set_up(outputs)
    else:
        answer = remote.run(outputs.ssh[TARGET], RESTARTS[what], seconds=120)
        assert answer.status == 0, answer.error


def reachable(outputs: Outputs) -> None:
    answer = remote.run(outputs.ssh[TARGET], "true", seconds=5)
    assert answer.status == 0, answer.error


def healthy(outputs: Outputs, program: Program) -> None:
    assert status.findings(status.look(outputs, program.stack)) == []


@pytest.mark.timeout(900)
def test_firewall_decisions_after_restarts(every_policy: Outputs, program: Program) -> None:
    outputs = every_policy
    same(outputs, DECISIONS)
    trying = [*outputs.ssh[OTHER].split(), TRY_ALL_THE_TIME.format(target=outputs.hosts[TARGET])]
    with subprocess.Popen(
        trying, cwd=stack.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tries:
        try:
            for what in SEQUENCE:
                restart(outputs, what)
                eventually(lambda: healthy(outputs, program), seconds=120)
                same(outputs, DECISIONS)
            assert tries.poll() is None, f"{OTHER} has stopped trying"
        finally:
            remote.run(outputs.ssh[OTHER], f"rm -f {TRYING}")
        through, _ = tries.communicate(timeout=10)
    assert through == "", f"{OTHER} got through while something was restarted"
