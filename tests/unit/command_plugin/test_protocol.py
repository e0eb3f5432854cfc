"""What the engine and the SDK count on: all properties of `pulumi_command`, the wire, an end to commands."""

import inspect
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pulumi_command
import pytest
from command_plugin import VERSION, properties, schema
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime import rpc as sdk
from pulumi.runtime.proto import provider_pb2 as rpc
from testbed import Plugin, Sshd, until

SCHEMA = json.loads(schema.package())


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
        call.result(timeout=20)
    return raised.value.code(), raised.value.details()


def gone(pid: Path) -> bool:
    """Whether the process that wrote its id there has ended."""
    status = Path("/proc") / pid.read_text().strip() / "status"
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize(
    "resource",
    [
        pulumi_command.local.Command,
        pulumi_command.remote.Command,
        pulumi_command.remote.CopyToRemote,
        pulumi_command.remote.CopyFile,
    ],
)
def test_every_property_of_the_sdk_is_served(resource: type) -> None:
    token = f"command:{resource.__module__.split('.')[1]}:{resource.__name__}"
    parameters = inspect.signature(resource._internal_init).parameters  # type: ignore[attr-defined]
    inputs = {camel(name) for name in list(parameters)[2:]} - {"opts", "Props"}
    outputs = {camel(name) for name, value in vars(resource).items() if isinstance(value, property)}
    assert set(SCHEMA["resources"][token]["inputProperties"]) == inputs
    assert set(SCHEMA["resources"][token]["properties"]) == outputs


@pytest.mark.parametrize("name", ["Connection", "ProxyConnection"])
def test_every_setting_of_a_connection_is_served(name: str) -> None:
    arguments = getattr(pulumi_command.remote, f"{name}Args")
    settings = {camel(name) for name, value in vars(arguments).items() if isinstance(value, property)}
    assert set(SCHEMA["types"][f"command:remote:{name}"]["properties"]) == settings


def test_every_argument_of_run_is_served() -> None:
    arguments = {camel(name) for name in inspect.signature(pulumi_command.local.run).parameters} - {"opts"}
    assert set(SCHEMA["functions"]["command:local:run"]["inputs"]["properties"]) == arguments


def test_the_version_is_that_of_the_sdk(plugin: Plugin) -> None:
    assert plugin.stub.GetPluginInfo(Empty()).version == VERSION == "1.2.1"


def test_the_schema_is_served(plugin: Plugin) -> None:
    assert json.loads(plugin.stub.GetSchema(rpc.GetSchemaRequest()).schema) == SCHEMA


def test_the_signatures_are_those_of_the_sdk() -> None:
    assert sdk._special_sig_key == properties.SIGNATURE
    assert sdk._special_secret_sig == properties.SECRET
    assert sdk._special_asset_sig == properties.ASSET
    assert sdk._special_archive_sig == properties.ARCHIVE
    assert properties.UNKNOWN_STRING == sdk.UNKNOWN


def test_the_engine_learns_that_secrets_are_understood(plugin: Plugin) -> None:
    answer = plugin.stub.Handshake(rpc.ProviderHandshakeRequest())
    assert answer.accept_secrets
    assert answer.accept_resources


def test_an_update_without_changes_does_not_load_the_ssh_library() -> None:
    loaded = "import sys, command_plugin.server; sys.exit('asyncssh' in sys.modules)"
    source = Path(inspect.getfile(schema)).parents[1]
    assert subprocess.run([sys.executable, "-c", loaded], cwd=source, check=False).returncode == 0


def test_an_unknown_function_is_refused(plugin: Plugin) -> None:
    call = plugin.stub.Invoke.future(rpc.InvokeRequest(tok="command:local:walk"))
    assert failure(call) == (grpc.StatusCode.NOT_FOUND, "Invoke 'command:local:walk' not found")


def test_commands_run_side_by_side(plugin: Plugin, tmp_path: Path) -> None:
    """Each of ten commands waits until all ten have started."""
    script = f"cd {tmp_path}; touch $N; until [ $(ls | wc -l) = 10 ]; do sleep 0.05; done"
    calls = [create(plugin, {"create": script, "environment": {"N": str(n)}}) for n in range(10)]
    assert all(call.result(timeout=20).id for call in calls)


def test_what_is_shown_belongs_to_its_resource(plugin: Plugin) -> None:
    request = rpc.CreateRequest(
        urn="urn:pulumi:test::project::command:local:Command::shown",
        properties=properties.write({"create": "seq 1000; printf end"}),
    )
    plugin.stub.Create(request)
    assert plugin.engine.lines(request.urn) == [*map(str, range(1, 1001)), "end"]


def test_lines_are_shown_while_the_command_runs(plugin: Plugin, tmp_path: Path) -> None:
    call = create(plugin, {"create": f"echo started it; until [ -e {tmp_path}/go ]; do sleep 0.05; done"})
    until(lambda: any("started it" in message.text for message in plugin.engine.messages), "a line")
    assert not call.done()
    (tmp_path / "go").touch()
    call.result(timeout=20)


@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("how", ["cancel", "terminate", "timeout", "leave"])
def test_a_running_command_can_be_ended(
    kind: str, how: str, fresh_plugin: Plugin, sshd: Sshd, tmp_path: Path
) -> None:
    """By the engine's Cancel, by a signal, by its timeout, and by the engine's hanging up."""
    pid = tmp_path / "pid"
    script = f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 100; echo never"
    inputs: properties.Properties = {"create": script, "connection": properties.Secret(sshd.connection)}
    if kind == "local":
        del inputs["connection"]
    call = create(fresh_plugin, inputs, kind=kind, timeout=3 if how == "timeout" else 0)
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
            assert failure(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "not done within its timeout of 3 s")
        case "leave":
            call.cancel()
    until(lambda: gone(pid), "the command to end")


def test_a_cancelled_local_command_takes_its_children_along(fresh_plugin: Plugin, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    call = create(
        fresh_plugin, {"create": f"sh -c 'echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 100; :'; :"}
    )
    until(pid.exists, "the child to start")
    fresh_plugin.stub.Cancel(Empty(), timeout=10)
    assert failure(call)[0] == grpc.StatusCode.CANCELLED
    until(lambda: gone(pid), "the child to end")
