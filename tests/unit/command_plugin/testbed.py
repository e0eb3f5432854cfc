"""What a plugin is tested with: an engine that records its log, and an sshd on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import grpc
from command_plugin.properties import Properties, Secret
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

SSHD: Final = "/usr/sbin/sshd"
OPTIONS: Final = [("grpc.max_receive_message_length", 400 * 1024 * 1024)]
LIMIT_S: Final = 30.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds; raises TimeoutError."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {LIMIT_S:g} s")
        time.sleep(0.02)


class Message(NamedTuple):
    """A message that the plugin has sent to the engine."""

    text: str
    urn: str


class Engine(engine_pb2_grpc.EngineServicer):
    """The part of the engine that plugins call: its log."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
        engine_pb2_grpc.add_EngineServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Log(  # noqa: N802 - the protocol names it
        self, request: engine_pb2.LogRequest, context: grpc.ServicerContext
    ) -> Empty:
        """Records a message."""
        self.messages.append(Message(request.message, request.urn))
        return Empty()

    def lines(self, urn: str) -> list[str]:
        """The lines that were shown beside a resource."""
        return [line for message in self.messages if message.urn == urn for line in message.text.split("\n")]

    def close(self) -> None:
        """Stops listening."""
        self._server.stop(0).wait()


class Plugin:
    """A running plugin, configured as the engine does it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.engine = Engine()
        # without the ssh-agent of the person who runs the tests
        own = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        self.process = subprocess.Popen(
            [*command, self.engine.address],
            stdout=subprocess.PIPE,
            text=True,
            env={**own, **(environment or {})},
        )
        port = self.process.stdout.readline().strip() if self.process.stdout else ""
        if not port.isdigit():
            raise RuntimeError(f"{command[0]} did not print a port but {port!r}")
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        self.stub = provider_pb2_grpc.ResourceProviderStub(channel)
        configuration = provider_pb2.ConfigureRequest(
            acceptSecrets=True, acceptResources=True, sends_old_inputs=True, sends_old_inputs_to_delete=True
        )
        self.stub.Configure(configuration, wait_for_ready=True, timeout=LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.engine.close()


class Sshd:
    """An sshd that runs as the user of the tests, in a temporary directory with new keys."""

    def __init__(self, *options: str) -> None:
        if not Path(SSHD).exists():
            raise FileNotFoundError(f"{SSHD} is not there: install openssh-server")
        self.directory = Path(tempfile.mkdtemp(prefix="sshd-"))
        self.user = getpass.getuser()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        for name, passphrase in (("host_key", ""), ("key", ""), ("locked_key", "phrase"), ("stranger", "")):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(self.directory / name)]
            subprocess.run(keygen, check=True)
        self.log = self.directory / "log"
        settings = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.directory}/host_key",
            f"AuthorizedKeysFile {self.directory}/key.pub",
            f"PidFile {self.directory}/pid",
            "StrictModes no",
            "UsePAM no",
            "LogLevel VERBOSE",
            "AcceptEnv PULUMI_COMMAND_STDOUT",
            "Subsystem sftp internal-sftp",
            *options,
        ]
        (self.directory / "config").write_text("\n".join(settings) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Starts it and waits until it listens."""
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", str(self.directory / "config"), "-E", str(self.log)]
        )
        until(self._listens, f"sshd on port {self.port}")

    def stop(self) -> None:
        """Stops it; open sessions stay open."""
        self.process.terminate()
        self.process.wait()

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"sshd ended: {self.log.read_text()}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def read(self, name: str) -> str:
        """The text of a file in its directory: `key`, `host_key.pub` and so on."""
        return (self.directory / name).read_text()

    @property
    def connection(self) -> Properties:
        """The `connection` property that logs in here, as `Check` returns it."""
        return {
            "host": "127.0.0.1",
            "port": float(self.port),
            "user": self.user,
            "privateKey": Secret(self.read("key")),
            "hostKey": self.read("host_key.pub"),
            "dialErrorLimit": 10.0,
            "perDialTimeout": 15.0,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory)
