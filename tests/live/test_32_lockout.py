"""Policies with `allowLockout` that cut SSH off: the host rolls them back by itself.

It does so within the rollback timer and five seconds, whatever happens to the controller. Its packet filters
are then exactly those before, and the next `up` changes nothing. While SSH is cut off, the tests look at the
host by `docker exec`.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.hosts import remote
from tests.live.program import QUIET, Program
from tests.live.scene import TARGET, kernel_rules
from tests.live.waiting import eventually
from workspace import outputs as stack
from workspace.outputs import PROJECT, Outputs

CONTAINER = f"calico-lab-{TARGET}"
BRIDGE = "br-calico-lab"
POLICY = "locks-out"
UNDO_SECONDS = 10
# The promise: how much longer than its timer a host may need to be open again.
GRACE_SECONDS = 5
PREVIOUS = "/etc/calico-lab/firewall/previous"
UNDO_TIMER = "calico-lab-firewall-undo.timer"

LOCKOUTS: dict[str, dict[str, Any]] = {
    "port 22 is dropped": {"rules": [{"action": "drop", "protocol": "tcp", "ports": 22}]},
    "the operator's address is rejected": {"rules": [{"action": "reject", "source": "operator"}]},
    "the operator's MAC address is rejected": {"rules": [{"action": "reject", "sourceMac": "MAC"}]},
    "everything is dropped": {"default": "drop"},
    "a CIDR is too wide": {"rules": [{"action": "drop", "source": "172.16.0.0/16"}]},
}
HARMLESS = {"rules": [{"action": "reject", "source": "visitor", "protocol": "tcp", "ports": 9}]}


def config(program: Program, folder: Path, policy: dict[str, Any], seconds: int = UNDO_SECONDS) -> Path:
    """The tracked config with one policy more, on the target."""

    def edit(firewall: dict[str, Any]) -> None:
        firewall["undoSeconds"] = seconds
        firewall["policies"][POLICY] = {"hosts": [TARGET], "allowLockout": True, **policy}

    return program.edited_config(folder, "firewall", edit)


def operators_mac() -> str:
    """The controller's MAC address on the machines' network."""
    told = subprocess.run(
        ["ip", "-json", "link", "show", BRIDGE], capture_output=True, text=True, check=True, timeout=10
    )
    return str(json.loads(told.stdout)[0]["address"])


def on_host(script: str, seconds: float = 30) -> bool:
    """Run a script on the target without SSH; whether it succeeded."""
    command = ["docker", "exec", CONTAINER, "sh", "-c", script]
    return not subprocess.run(command, capture_output=True, check=False, timeout=seconds).returncode


def opens(outputs: Outputs) -> bool:
    """Whether a new SSH connection to the target comes about."""
    # The limit of the connection is for packets that are dropped; a login takes longer on a busy machine.
    return remote.run(f"{outputs.ssh[TARGET]} -o ConnectTimeout=2", "true", seconds=8).status == 0


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until it is so, and fail with its name."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


class Up:
    """A `pulumi up` that runs while the test does other things."""

    def __init__(self, program: Program, file: Path) -> None:
        options = ["--yes", "--skip-preview", *QUIET, "--config-file", str(file)]
        self.process = subprocess.Popen(
            ["pulumi", "up", "--stack", program.stack, *options],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def fails(self) -> str:
        """Wait for its end, which has to be a failure; what it printed."""
        printed, _ = self.process.communicate(timeout=120)
        assert self.process.returncode != 0, printed
        assert "Traceback" not in printed
        return printed

    def kill(self) -> None:
        """Kill it and all that it started, with no chance to do anything any more."""
        session = f" {self.process.pid} "
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                # proc(5): after the name in parentheses come state, parent, process group and session.
                fields = status.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f" {fields[3]} " == session:
                os.kill(int(status.parent.name), signal.SIGKILL)
        self.process.wait(timeout=10)


@pytest.fixture(autouse=True)
def _rules_are_put_back(outputs: Outputs) -> Iterator[None]:
    """The host's packet filters after a case are those before it, and no rollback timer is left."""
    before = settled(outputs)
    yield

    def put_back() -> None:
        assert settled(outputs) == before
        assert on_host(f"! systemctl is-active --quiet {UNDO_TIMER}")

    eventually(put_back, seconds=60)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_to_do(outputs: Outputs, program: Program) -> Iterator[None]:
    """After all trials an `up` of the tracked config changes no rule, and then nothing has drifted."""
    before = settled(outputs)
    yield
    program.up()
    assert stack.read(program.stack).firewall == {}
    assert settled(outputs) == before
    program.pulumi("preview", "--expect-no-changes", "--refresh", *QUIET)


def settled(outputs: Outputs) -> list[str]:
    """The target's packet filters, without what another start of the same things gives another name.

    These are the interfaces of containers, and the ports of the resolver that the controller's Docker has in
    the machine's namespace.
    """
    return sorted(
        re.sub(r'cali[0-9a-f]{11}|"cali:[\w-]{16}"|cali-[ft]w-\S+', "cali", line)
        for line in kernel_rules(outputs)
        if "127.0.0.11" not in line
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", LOCKOUTS)
def test_lockout_rolled_back(case: str, outputs: Outputs, program: Program, tmp_path: Path) -> None:
    text = json.dumps(LOCKOUTS[case]).replace("MAC", operators_mac())
    up = Up(program, config(program, tmp_path, json.loads(text)))
    wait_for(lambda: on_host(f"test -d {PREVIOUS}"), "the new rules", 150)
    loaded = time.monotonic()
    wait_for(lambda: not opens(outputs), "the lockout", UNDO_SECONDS)
    wait_for(lambda: opens(outputs), "SSH", loaded + UNDO_SECONDS + GRACE_SECONDS - time.monotonic())
    printed = up.fails()
    assert (
        f"{TARGET}: firewall: the new rules were loaded, but no new SSH connection confirmed them" in printed
    )
    assert "the host has put back what it had before (seen)" in printed


@pytest.mark.timeout(180)
def test_lockout_controller_killed(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    up = Up(program, config(program, tmp_path, LOCKOUTS["everything is dropped"]))
    wait_for(lambda: on_host(f"test -d {PREVIOUS}"), "the new rules", 150)
    loaded = time.monotonic()
    up.kill()
    # A killed run leaves its lock.
    program.pulumi("cancel", "--yes")
    wait_for(lambda: not opens(outputs), "the lockout", UNDO_SECONDS)
    wait_for(lambda: opens(outputs), "SSH", loaded + UNDO_SECONDS + GRACE_SECONDS - time.monotonic())


@pytest.mark.timeout(180)
def test_lockout_ssh_sessions_killed(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    """Killed on the host, from the moment when the timer is armed: each SSH session, and the script in it."""
    armed = f"systemctl is-active --quiet {UNDO_TIMER}"
    # OpenSSH 9.8 and later have each session in a program of its own, sshd-session.
    kill = "pkill -KILL -f '[s]shd(-session)?: root|[f]irewall.sh apply'"
    # The killing does not wait for systemctl, which takes longer than a session on a busy host.
    kills = f"while :; do {kill}; sleep 0.01; done"
    killing = f"({kills}) & while {armed}; do sleep 0.05; done; kill $!"
    cut = f"echo ready; until {armed}; do sleep 0.02; done; {killing}"
    command = ["docker", "exec", CONTAINER, "sh", "-c", cut]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cutter:
        assert cutter.stdout
        assert cutter.stdout.readline() == "ready\n"
        up = Up(program, config(program, tmp_path, HARMLESS))
        cutter.wait(timeout=150)
    wait_for(lambda: on_host(f"! test -d {PREVIOUS}"), "the undo", GRACE_SECONDS)
    wait_for(lambda: opens(outputs), "SSH", 30)
    assert f"{TARGET}: firewall: " in up.fails()


@pytest.mark.timeout(240)
def test_lockout_host_reset(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    """The timer goes with the power, so that it is the boot that undoes: long before the timer would."""
    up = Up(program, config(program, tmp_path, LOCKOUTS["port 22 is dropped"], seconds=120))
    wait_for(lambda: on_host(f"test -d {PREVIOUS}"), "the new rules", 150)
    wait_for(lambda: not opens(outputs), "the lockout", UNDO_SECONDS)
    for verb in ("kill", "start"):
        subprocess.run(["docker", verb, CONTAINER], capture_output=True, check=True, timeout=60)
    wait_for(lambda: opens(outputs), "SSH", 60)
    assert on_host(f"! test -d {PREVIOUS}")
    assert "no new SSH connection confirmed them" in up.fails()
