"""`calicoctl`, `etcdctl` and `birdc` work on a host as typed, in every kind of shell."""

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.look import everywhere
from workspace.outputs import PROJECT, Outputs

TOOLS = {
    "calicoctl get nodes": "a0",
    "calicoctl get ippool -o wide": "netv",
    "calicoctl ipam show": "CIDR",
    "etcdctl endpoint health": "is healthy",
    "etcdctl member list": "started",
    "etcdctl get --prefix --keys-only --limit=1 /calico": "/calico/",
    "birdc show protocols": "Established",
    "birdc show route": "unicast",
}
SHELLS = {
    "as typed": "{}",
    "in a shell": "bash -c {}",
    "in a login shell": "bash -l -c {}",
    "in sh": "sh -c {}",
}


def typed(ssh: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Type a command behind the ssh command."""
    return subprocess.run(
        [*shlex.split(ssh), *options, command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        input="exit\n",
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", TOOLS)
def test_tool_works(outputs: Outputs, command: str, shell: str) -> None:
    quoted = command if shell == "as typed" else shlex.quote(command)
    with ThreadPoolExecutor() as pool:
        tried = pool.map(lambda host: typed(outputs.ssh[host], SHELLS[shell].format(quoted)), outputs.hosts)
    for host, done in zip(outputs.hosts, tried, strict=True):
        assert done.returncode == 0, f"{host}: {done.stdout}{done.stderr}"
        assert TOOLS[command] in done.stdout + done.stderr, host


def test_etcdctl_without_member(outputs: Outputs) -> None:
    # As on a host of the network that is no member.
    away = "mv /etc/calico-lab/etcd/etcdctl.env /etc/calico-lab/etcd/etcdctl.away"
    back = "mv /etc/calico-lab/etcd/etcdctl.away /etc/calico-lab/etcd/etcdctl.env"
    ssh = next(iter(outputs.ssh.values()))
    done = typed(ssh, f"{away}; trap {shlex.quote(back)} EXIT; etcdctl endpoint health")
    assert (done.returncode, "is healthy" in done.stdout + done.stderr) == (0, True), done.stderr


def test_credentials_are_for_root(outputs: Outputs) -> None:
    for host, text in everywhere(outputs, "stat -c '%a %U' /etc/calico-lab/pki/*.key").items():
        assert {line.split()[0] for line in text.splitlines()} == {"600"}, host


def test_login_greeting(outputs: Outputs) -> None:
    for host in outputs.hosts:
        done = typed(outputs.ssh[host], "", "-tt")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("Calico Lab: ")]
        assert line.startswith(f"Calico Lab: {host} is a host of the lab. Its logs: journalctl ")
