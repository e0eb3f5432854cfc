"""Connections: bursts, retries, the ways to log in, and what happens when one breaks."""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import grpc
import pytest
from command_plugin import output, remote
from command_plugin.properties import Properties, Secret, Value, read, write
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import provider_pb2 as rpc
from testbed import Plugin, Sshd, until


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


def test_a_burst_of_commands_is_not_throttled(plugin: Plugin) -> None:
    """With sshd's default of MaxStartups 10:30:100, of 30 commands at once (nearly) none is dropped.

    Nearly: sshd counts a login for a moment longer than its client. Unbounded, more than ten are dropped.
    """
    with Sshd() as sshd:
        calls = [start(plugin, sshd.connection, f"echo {n}") for n in range(30)]
        assert [stdout(call) for call in calls] == [str(n) for n in range(30)]
        log = sshd.log.read_text()
    assert log.count("Accepted publickey") == 30
    assert log.count("drop connection") <= 2


def test_dropped_connections_are_dialled_again(plugin: Plugin) -> None:
    with Sshd("MaxStartups 2:100:3") as sshd:
        calls = [start(plugin, sshd.connection, f"echo {n}") for n in range(20)]
        assert [stdout(call) for call in calls] == [str(n) for n in range(20)]
        assert "MaxStartups" in sshd.log.read_text()


def test_a_silent_server_does_not_hold_up_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """More dials than may be under way at once go to a server that never answers: all of them get there."""
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    dials = remote.HANDSHAKES + 3

    async def count_dials() -> None:
        arrived = asyncio.Semaphore(0)
        server = await asyncio.start_server(lambda _reader, _writer: arrived.release(), "127.0.0.1", 0)
        connection: Properties = {"host": "127.0.0.1", "port": float(server.sockets[0].getsockname()[1])}
        waiting = [asyncio.create_task(go(connection, "true")) for _ in range(dials)]
        async with asyncio.timeout(10):
            for _ in range(dials):
                await arrived.acquire()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        server.close()

    asyncio.run(count_dials())


def test_a_server_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        connection: Properties = {
            "host": "127.0.0.1",
            "port": float(port),
            "perDialTimeout": 1.0,
            "dialErrorLimit": 0.0,
        }
        with pytest.raises(output.CommandError, match=f"dial root@127.0.0.1:{port}: .* no answer within 1 s"):
            run(connection, "true")


def test_a_dial_can_be_cancelled(fresh_plugin: Plugin, sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        call = start(fresh_plugin, sshd.connection | {"port": float(silent.getsockname()[1])}, "true")
        silent.accept()
        fresh_plugin.stub.Cancel(Empty(), timeout=10)
        assert problem(call) == "cancelled while it ran"


def test_a_server_that_comes_up_late_is_waited_for(plugin: Plugin) -> None:
    with Sshd() as sshd:
        sshd.stop()
        call = start(plugin, sshd.connection, "echo late", "late")
        urn = "urn:pulumi:test::project::command:remote:Command::late"
        until(lambda: "Dial 2/10 failed: retrying" in plugin.engine.lines(urn), "two failed dials")
        sshd.start()
        assert stdout(call) == "late"


def test_the_proxy_is_what_dials(plugin: Plugin, sshd: Sshd) -> None:
    with Sshd() as proxy:
        connection = sshd.connection | {"proxy": proxy.connection}
        client, _, _ = str(stdout(start(plugin, connection, "echo $SSH_CLIENT"))).split()
        assert client == "127.0.0.1"
        assert proxy.log.read_text().count("Accepted publickey") == 1


def test_behind_a_proxy_dials_are_repeated_too(plugin: Plugin, sshd: Sshd) -> None:
    with Sshd("MaxStartups 1:100:1") as target:
        connection = target.connection | {"proxy": sshd.connection}
        calls = [start(plugin, connection, f"echo {n}") for n in range(4)]
        assert [stdout(call) for call in calls] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("given", ["agentSocketPath", "SSH_AUTH_SOCK"])
def test_keys_can_come_from_an_agent(
    given: str, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(path).exists(), "the agent")
        environment = os.environ | {"SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", str(sshd.directory / "key")], env=environment, check=True)
        connection = {name: value for name, value in sshd.connection.items() if name != "privateKey"}
        if given == "agentSocketPath":
            connection["agentSocketPath"] = path
        else:
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert run(connection, "echo in") == "in"
    finally:
        agent.terminate()
        agent.wait()


class PasswordServer(asyncssh.SSHServer):
    """A server that takes one password, by one method."""

    method = ""

    def password_auth_supported(self) -> bool:
        """Whether it is asked for a password."""
        return self.method == "password"

    def validate_password(self, username: str, password: str) -> bool:
        """Whether it is the password."""
        return (username, password) == ("someone", "open sesame")

    def kbdint_auth_supported(self) -> bool:
        """Whether it asks questions."""
        return self.method == "keyboard-interactive"

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        """Ask one question."""
        return "", "", "", [("Password:", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        """Whether the answer is the password."""
        return list(responses) == ["open sesame"]


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_a_password_logs_in(method: str) -> None:
    async def handle(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stdout.write("in\n")
        process.exit(0)

    async def log_in() -> str:
        PasswordServer.method = method
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=PasswordServer,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            process_factory=handle,
        )
        connection: Properties = {
            "host": "127.0.0.1",
            "port": float(server.get_port()),
            "user": "someone",
            "password": Secret("open sesame"),
            "dialErrorLimit": 0.0,
        }
        try:
            return await go(connection, "true")
        finally:
            server.close()

    assert asyncio.run(log_in()) == "in"


class Silence:
    """A log that keeps nothing."""

    async def status(self, message: str) -> None:
        """Ignore it."""

    warning = error = status


async def go(connection: Properties, command: str) -> str:
    inputs: Properties = {"connection": Secret(connection), "create": command}
    async with output.Output(inputs, Silence()) as printed:
        await remote.run(inputs, "create", {}, output=printed, log=Silence())
        return printed.text(output.Stream.STDOUT)


def run(connection: Properties, command: str) -> str:
    """Run a command in this process, where the bounds can be changed."""
    return asyncio.run(go(connection, command))


def test_a_host_that_vanishes_ends_the_command(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEEPALIVE_INTERVAL", 0.2)
    with pytest.raises(output.CommandError, match=f"127.0.0.1:{sshd.port}: "):
        run(sshd.connection, "kill -STOP $PPID; (sleep 4; kill -CONT $PPID) >/dev/null 2>&1 & sleep 60")


def test_a_connection_that_breaks_ends_the_command(plugin: Plugin, sshd: Sshd) -> None:
    message = problem(start(plugin, sshd.connection, "kill -9 $PPID; sleep 60"))
    assert message.startswith(f"{sshd.user}@127.0.0.1:{sshd.port}: ")


def test_the_wait_between_dials_is_bounded() -> None:
    waits = []
    delay = remote.FIRST_DELAY
    for _ in range(10):
        waits.append(delay)
        delay = min(delay * remote.BACKOFF, remote.LONGEST_DELAY)
    assert 10 < sum(waits) < 15


@contextmanager
def listening_once(banner: bytes) -> Iterator[int]:
    """A server that says one thing to whoever connects."""
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
def test_what_is_not_an_ssh_server_is_told(banner: bytes, sshd: Sshd) -> None:
    with listening_once(banner) as port:
        connection = sshd.connection | {"port": float(port), "dialErrorLimit": 0.0}
        with pytest.raises(output.CommandError, match=f"dial {sshd.user}@127.0.0.1:{port}: after 0 failed"):
            run(connection, "true")
