"""Reachability: which flows are tried, and what a kernel answers."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from components.firewall.rules.guard import RequiredFlow
from components.hosts.remote import Answer
from diagnosis.reachability import only, probes_of, reach
from tests.unit.firewall.firewall_cases import LAB

HOST = """\
import socket, subprocess
subprocess.run(["sh", "-euc", '''
ip link set lo up
ip address add 172.16.6.44/32 dev lo
iptables -A INPUT -p tcp --dport 83 -j DROP
'''], check=True)
with socket.create_server(("172.16.6.44", 81)) as server:
    server.setblocking(False)
    print("ready", flush=True)
    input()
    try:
        print("seen", server.accept()[1], flush=True)
    except BlockingIOError:
        print("nothing seen", flush=True)
    input()
"""
ADDRESSES = {"a0": "172.16.6.44"}


@pytest.fixture
def host() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A host with an open, a closed and a dropped port, and the command that takes the place of its ssh."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--net", sys.executable, "-c", HOST]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        enter = ["nsenter", "--target", str(process.pid), "--net"]
        yield process, " ".join([*enter, *(["--user", "--preserve-credentials"] if user else []), "sh", "-c"])
        process.stdin.close()


@pytest.mark.parametrize("patience", [0, 0.5])
def test_reach_opens_no_connection(patience: float, host: tuple["subprocess.Popen[str]", str]) -> None:
    process, ssh = host
    probes = {"a0": {f"a0:{port}": "" for port in (81, 82, 83)}}
    assert reach({"a0": ssh}, ADDRESSES, probes, patience=patience) == {("a0", "a0:81"): "172.16.6.44"}
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    assert process.stdout.readline() == "nothing seen\n"


def test_reach_from_operator() -> None:
    assert reach({}, {"a0": "127.0.0.1"}, {"operator": {"a0:9": "the HTTP proxy"}}) == {}


@pytest.mark.parametrize(
    ("status", "asked"), [(255, 2), (124, 2), (1, 1)], ids=["unreachable", "too slow", "failed"]
)
def test_reach_host_without_answer(status: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(ssh: str, *_: object) -> Answer:
        calls.append(ssh)
        return Answer(status, "", "gone")

    monkeypatch.setattr("diagnosis.reachability.run", run)
    assert reach({"a1": "ssh a1"}, ADDRESSES, {"a1": {"a0:2380": "etcd's peers"}}) == {}
    assert calls == ["ssh a1"] * asked


def test_probes_of_host() -> None:
    flows = [
        RequiredFlow("the operator's SSH", "operator", "172.16.6.1", "a0", "tcp", 22),
        RequiredFlow("the HTTP proxy", "operator", "172.16.6.1", "a0", "tcp", 8888),
        RequiredFlow("BGP", "a1", "172.16.6.218", "a0", "tcp", 179),
        RequiredFlow("BGP", "a0", "172.16.6.44", "a1", "tcp", 179),
        RequiredFlow("BGP", "a2", "172.16.6.231", "a1", "tcp", 179),
        RequiredFlow("VXLAN", "a1", "172.16.6.218", "a0", "udp", 4789),
    ]
    found = probes_of("a0", LAB, flows)
    assert found == {
        "operator": {"a0:8888": "the HTTP proxy"},
        "a1": {"a0:179": "BGP"},
        "a0": {"a1:179": "BGP"},
    }
    assert only(found, [("a1", "a0:179")]) == {"a1": {"a0:179": "BGP"}}
