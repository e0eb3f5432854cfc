"""SSH connections: many at once, retries, the ssh-agent, and lost connections."""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from command_plugin import output, provider, remote
from command_plugin.properties import Properties, Secret, Value, read, write
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import provider_pb2 as rpc

from tests.unit.command_plugin.testbed import Plugin, Sshd, until


def start(plugin: Plugin, connection: Properties, command: str, name: str = "c") -> grpc.Future:
    urn = f"urn:pulumi:test::project::command:remote:Command::{name}"
    inputs: Properties = {"connection": Secret(connection), "create": command}
    return plugin.stub.Create.future(rpc.CreateRequest(urn=urn, properties=write(inputs)))


def stdout(call: grpc.Future) -> Value:
    return read(call.result(timeout=60).properties)["stdout"]


def problem(call: grpc.Future) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call.result(timeout=60)
    return str(raised.value.details())


def run(connection: Properties, command: str) -> str:
    """Runs a command in this process, where the limits can be changed."""
    inputs: Properties = {"connection": Secret(connection), "create": command}

    async def show(message: str) -> None:
        pass

    async def go() -> str:
        async with output.Output(inputs, show) as printed:
            await remote.run(inputs, "create", {}, printed, show)
            return str(printed.outputs["stdout"])

    return asyncio.run(go())


def test_dial_many_at_once(plugin: Plugin) -> None:
    """With sshd's default of MaxStartups 10:30:100, of 30 commands at once (nearly) none is dropped.

    Nearly: sshd counts a login for a moment longer than its client. Without a limit, more than ten are.
    """
    with Sshd() as sshd:
        calls = [start(plugin, sshd.connection, f"echo {n}") for n in range(30)]
        assert [stdout(call) for call in calls] == [str(n) for n in range(30)]
        log = sshd.log.read_text()
    assert log.count("Accepted publickey") == 30
    assert log.count("drop connection") <= 2


def test_dial_dropped_by_the_server(plugin: Plugin) -> None:
    with Sshd("MaxStartups 2:100:3") as sshd:
        calls = [start(plugin, sshd.connection, f"echo {n}") for n in range(20)]
        assert [stdout(call) for call in calls] == [str(n) for n in range(20)]
        assert "MaxStartups" in sshd.log.read_text()


def test_dial_dropped_behind_the_proxy(plugin: Plugin, sshd: Sshd) -> None:
    with Sshd("MaxStartups 1:100:1") as target:
        connection = target.connection | {"proxy": sshd.connection}
        calls = [start(plugin, connection, f"echo {n}") for n in range(4)]
        assert [stdout(call) for call in calls] == ["0", "1", "2", "3"]


def test_dial_through_the_proxy(plugin: Plugin, sshd: Sshd) -> None:
    with Sshd() as proxy:
        connection = sshd.connection | {"proxy": proxy.connection}
        assert stdout(start(plugin, connection, "echo through")) == "through"
        assert proxy.log.read_text().count("Accepted publickey") == 1


def test_dial_server_starts_late(plugin: Plugin) -> None:
    with Sshd() as sshd:
        sshd.stop()
        call = start(plugin, sshd.connection, "echo late", "late")
        urn = "urn:pulumi:test::project::command:remote:Command::late"
        until(lambda: "Dial 2/10 failed: retrying" in plugin.engine.lines(urn), "two failed dials")
        sshd.start()
        assert stdout(call) == "late"


def test_dial_no_answer(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        connection = sshd.connection | {"port": float(port), "perDialTimeout": 1.0, "dialErrorLimit": 0.0}
        with pytest.raises(
            provider.CommandError, match=f"dial {sshd.user}@127.0.0.1:{port}: .* no answer within 1 s"
        ):
            run(connection, "true")


def test_dial_cancelled(fresh_plugin: Plugin, sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        call = start(fresh_plugin, sshd.connection | {"port": float(silent.getsockname()[1])}, "true")
        silent.accept()
        fresh_plugin.stub.Cancel(Empty(), timeout=10)
        assert problem(call) == "cancelled while it ran"


@contextmanager
def listening_once(banner: bytes) -> Iterator[int]:
    """A server that sends something to its first client and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(banner)

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("banner", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"Exceeded MaxStartups\r\n"])
def test_dial_not_an_ssh_server(banner: bytes, sshd: Sshd) -> None:
    with listening_once(banner) as port:
        connection = sshd.connection | {"port": float(port), "dialErrorLimit": 0.0}
        where = f"dial {sshd.user}@127.0.0.1:{port}"
        with pytest.raises(provider.CommandError, match=f"{where}: after 0 failed attempts: "):
            run(connection, "true")


def test_login_with_the_agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(path).exists(), "the agent")
        environment = os.environ | {"SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", str(sshd.directory / "key")], env=environment, check=True)
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        connection = {name: value for name, value in sshd.connection.items() if name != "privateKey"}
        assert run(connection, "echo in") == "in"
    finally:
        agent.terminate()
        agent.wait()


def test_run_host_vanishes(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEEPALIVE_INTERVAL_S", 0.2)
    with pytest.raises(provider.CommandError, match=f"127.0.0.1:{sshd.port}: the connection ended before"):
        run(sshd.connection, "kill -STOP $PPID; (sleep 4; kill -CONT $PPID) >/dev/null 2>&1 & sleep 60")


def test_run_connection_breaks(plugin: Plugin, sshd: Sshd) -> None:
    message = problem(start(plugin, sshd.connection, "kill -9 $PPID; sleep 60"))
    assert message.startswith(f"{sshd.user}@127.0.0.1:{sshd.port}: the connection ended before")
