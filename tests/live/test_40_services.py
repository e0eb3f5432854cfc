"""The notebook, the proxy and the SSH box: what they serve, and which clients they refuse."""

import json
import shlex
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from bench import kernel
from bench.guests import Guest
from components.hosts import remote
from tests.live.program import Program
from workspace.outputs import PROJECT, Outputs

FLOWS = Path(__file__).with_name("flows.sh").read_text()
API_PORT = 8001


@pytest.fixture(scope="module")
def notebook(outputs: Outputs) -> str:
    return outputs.proxy_url.rstrip("/")


def test_notebook_runs_a_cell_through_the_proxy(notebook: str, token: str) -> None:
    assert kernel.run_cell(notebook, token, "print(6*7)") == "42\n"


@pytest.mark.parametrize("parameters", [{}, {"token": "0" * 64}])
def test_notebook_without_token(notebook: str, parameters: dict[str, str]) -> None:
    for path in ("kernels", "contents", "terminals"):
        answer = requests.get(f"{notebook}/api/{path}", params=parameters, timeout=10)
        assert answer.status_code == 403, path
    assert requests.post(f"{notebook}/api/kernels", params=parameters, timeout=10).status_code == 403


def test_notebook_reached_from_every_host(guest: dict[str, Guest]) -> None:
    for one in guest.values():
        assert "succeeded" in one.run("nc -v -z -w 5 192.168.0.100 8888 2>&1")


def ssh_to_box(command: str) -> subprocess.CompletedProcess[str]:
    """Open a session by an ssh command of the stack's outputs, in the project's folder."""
    return subprocess.run(
        [*shlex.split(command), "id -un; ip -o -4 a"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_ssh_box_login_by_the_command_in_the_outputs(program: Program) -> None:
    box = json.loads(program.pulumi("stack", "output", "sshBoxes", "--json"))["sshbox"]
    session = ssh_to_box(box["command"])
    assert session.returncode == 0, session.stderr
    user, *interfaces = session.stdout.splitlines()
    assert user == "admin"
    assert any(f" {box['address']}/32 " in line for line in interfaces)


def test_ssh_box_refuses_another_key(program: Program) -> None:
    box = json.loads(program.pulumi("stack", "output", "sshBoxes", "--json"))["sshbox"]
    # By its address, ssh(1) has the key of the hosts alone.
    known = f"-o HostKeyAlias=sshbox -o UserKnownHostsFile=.state/ssh/{program.stack}/boxes/known_hosts"
    command = box["command"].removesuffix("sshbox")
    stranger = ssh_to_box(f"{command} {known} -J a0 admin@{box['address']}")
    assert stranger.returncode == 255
    assert "Permission denied (publickey)" in stranger.stderr


def test_refresh_makes_again_what_somebody_has_removed(program: Program, outputs: Outputs) -> None:
    box = json.loads(program.pulumi("stack", "output", "sshBoxes", "--json"))["sshbox"]
    assert ssh_to_box(box["command"] + " touch kept;").returncode == 0
    assert remote.run(outputs.ssh["a0"], "docker container rm --force calico-lab-sshbox").status == 0
    program.pulumi("up", "--refresh", "--yes", "--skip-preview")
    session = ssh_to_box(box["command"] + " ls;")
    assert session.returncode == 0, session.stderr
    # Its home outlives it.
    assert session.stdout.splitlines()[:2] == ["kept", "admin"]
    program.pulumi("preview", "--expect-no-changes")


def test_proxy_api_is_local(outputs: Outputs) -> None:
    proxy = urlsplit(outputs.proxy_url)
    host = next(host for host, address in outputs.hosts.items() if address == proxy.hostname)
    ports = {"TARGET": outputs.hosts[host], "SOURCE": "", "PORTS": f"{proxy.port} {API_PORT}"}
    seen = remote.run(outputs.ssh["visitor"], FLOWS, ports).text.splitlines()
    assert f"tcp/{proxy.port} open" in seen
    assert f"tcp/{API_PORT} open" not in seen
    listening = remote.run(outputs.ssh[host], "ss -Htln | awk '{print $4}'").text.split()
    assert [where for where in listening if where.endswith(f":{API_PORT}")] in ([], [f"127.0.0.1:{API_PORT}"])


def test_proxy_api_is_not_published(outputs: Outputs) -> None:
    answer = requests.get(f"{outputs.proxy_url.rstrip('/')}/api/routes", timeout=10)
    assert answer.status_code in (403, 404)
    assert "target" not in answer.text
