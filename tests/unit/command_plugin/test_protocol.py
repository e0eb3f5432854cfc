"""What the engine and the SDK rely on: names, signatures, parallel commands, and how commands are ended."""

import inspect
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pulumi_command
import pytest
from command_plugin import VERSION, check, properties
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime import rpc as sdk
from pulumi.runtime.proto import provider_pb2 as rpc

from tests.unit.command_plugin.conftest import SOURCE
from tests.unit.command_plugin.testbed import Plugin, Sshd, until


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def create(
    plugin: Plugin, inputs: properties.Properties, *, kind: str = "local", timeout: float = 0
) -> grpc.Future:
    urn = f"urn:pulumi:test::project::command:{kind}:Command::c"
    request = rpc.CreateRequest(urn=urn, properties=properties.write(inputs), timeout=timeout)
    return plugin.stub.Create.future(request)


def failure(call: grpc.Future) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call.result(timeout=60)
    return raised.value.code(), raised.value.details()


def gone(pid: Path) -> bool:
    """Whether the process whose ID is in the file has ended."""
    status = Path("/proc") / pid.read_text().strip() / "status"
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize(
    "resource",
    [pulumi_command.local.Command, pulumi_command.remote.Command, pulumi_command.remote.CopyToRemote],
)
def test_check_knows_every_property(resource: type) -> None:
    spec = check.RESOURCES[f"command:{resource.__module__.split('.')[1]}:{resource.__name__}"]
    parameters = inspect.signature(resource._internal_init).parameters  # type: ignore[attr-defined]
    inputs = {camel(name) for name in list(parameters)[2:]} - {"opts", "Props"}
    assert spec.properties.keys() | spec.absent == inputs


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (check.Kind.CONNECTION, pulumi_command.remote.ConnectionArgs),
        (check.Kind.PROXY, pulumi_command.remote.ProxyConnectionArgs),
    ],
)
def test_check_knows_every_setting_of_a_connection(kind: check.Kind, arguments: type) -> None:
    spec = check.CONNECTIONS[kind]
    settings = {camel(name) for name, value in vars(arguments).items() if isinstance(value, property)}
    assert spec.properties.keys() | spec.absent == settings


def test_check_failure_without_value(plugin: Plugin) -> None:
    """The engine prints the value of a property that a failure names, and a connection has secrets."""
    urn = "urn:pulumi:test::project::command:remote:Command::c"
    inputs = properties.write({"connection": {"host": "h", "privateKey": "k", "hostkey": "k"}})
    failures = plugin.stub.Check(rpc.CheckRequest(urn=urn, news=inputs)).failures
    assert [(failure.property, failure.reason) for failure in failures] == [
        ("", "connection: Unrecognized field 'hostkey'")
    ]


def test_version(plugin: Plugin) -> None:
    assert plugin.stub.GetPluginInfo(Empty()).version == VERSION == "1.2.1"


def test_signatures() -> None:
    assert sdk._special_sig_key == properties.SIGNATURE
    assert sdk._special_secret_sig == properties.SECRET
    assert sdk._special_asset_sig == properties.ASSET
    assert properties.UNKNOWN_STRING == sdk.UNKNOWN


def test_handshake(plugin: Plugin) -> None:
    answer = plugin.stub.Handshake(rpc.ProviderHandshakeRequest())
    assert answer.accept_secrets
    assert answer.accept_resources


def test_start_imports() -> None:
    """Neither the SSH library nor the SDK's own code is imported, because both take long."""
    program = (
        "import sys, command_plugin.server\n"
        "print(*{'asyncssh', 'command_plugin.output', 'pulumi.runtime.settings'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=SOURCE, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == []


def test_invoke(plugin: Plugin) -> None:
    call = plugin.stub.Invoke.future(rpc.InvokeRequest(tok="command:local:run"))
    assert failure(call) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "the stand-in of the command plugin does not have command:local:run; an official Pulumi has it",
    )


def test_create_parallel(plugin: Plugin, tmp_path: Path) -> None:
    """Each of ten commands waits until all ten have started."""
    script = f"cd {tmp_path}; touch $N; until [ $(ls | wc -l) = 10 ]; do sleep 0.05; done"
    calls = [create(plugin, {"create": script, "environment": {"N": str(n)}}) for n in range(10)]
    assert all(call.result(timeout=20).id for call in calls)


def test_shown_beside_the_resource(plugin: Plugin) -> None:
    request = rpc.CreateRequest(
        urn="urn:pulumi:test::project::command:local:Command::shown",
        properties=properties.write({"create": "seq 1000; printf end"}),
    )
    plugin.stub.Create(request)
    assert plugin.engine.lines(request.urn) == [*map(str, range(1, 1001)), "end"]


def test_shown_while_running(plugin: Plugin, tmp_path: Path) -> None:
    call = create(plugin, {"create": f"echo started it; until [ -e {tmp_path}/go ]; do sleep 0.05; done"})
    until(lambda: any("started it" in message.text for message in plugin.engine.messages), "a line")
    assert not call.done()
    (tmp_path / "go").touch()
    call.result(timeout=20)


@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("how", ["cancel", "terminate", "timeout", "drop"])
def test_running_command_is_ended(
    kind: str, how: str, fresh_plugin: Plugin, sshd: Sshd, tmp_path: Path
) -> None:
    """By the engine's Cancel, by SIGTERM, by its timeout, and when the engine drops the call."""
    pid = tmp_path / "pid"
    script = f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 100; echo never"
    inputs: properties.Properties = {"create": script}
    if kind == "remote":
        inputs["connection"] = properties.Secret(sshd.connection)
    call = create(fresh_plugin, inputs, kind=kind, timeout=12 if how == "timeout" else 0)
    until(pid.exists, "the command to start")
    match how:
        case "cancel":
            fresh_plugin.stub.Cancel(Empty(), timeout=10)
            assert failure(call) == (grpc.StatusCode.CANCELLED, "cancelled while it ran")
            later = create(fresh_plugin, {"create": "true"})
            assert failure(later) == (grpc.StatusCode.CANCELLED, "cancelled before it started")
        case "terminate":
            fresh_plugin.process.send_signal(signal.SIGTERM)
            assert fresh_plugin.process.wait(10) == 0
        case "timeout":
            assert failure(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "not done within its timeout of 12 s")
        case "drop":
            call.cancel()
    until(lambda: gone(pid), "the command to end")


def test_cancel_kills_children(fresh_plugin: Plugin, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    call = create(
        fresh_plugin, {"create": f"sh -c 'echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 100; :'; :"}
    )
    until(pid.exists, "the child to start")
    fresh_plugin.stub.Cancel(Empty(), timeout=10)
    assert failure(call)[0] == grpc.StatusCode.CANCELLED
    until(lambda: gone(pid), "the child to end")
