"""The plugin's protocol: Pulumi's ResourceProvider service over gRPC.

The service is implemented on the SDK's generated class and not on `pulumi.provider.experimental`, whose
server does not pass on a diff's old inputs, drops the hashes of assets, takes unknown values for strings, and
appends a Python traceback to every error that a person gets to read.
"""

# ruff: noqa: N802 - the methods are named by the protocol

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from . import VERSION, provider, schema
from .output import CommandError
from .properties import Change, read, write

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext

MESSAGE_LIMIT: Final = 400 * 1024 * 1024
OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
]
"""The engine's own limit; a command's input and output travel in one message."""

KINDS: Final = {
    (Change.ADD, False): provider_pb2.PropertyDiff.ADD,
    (Change.ADD, True): provider_pb2.PropertyDiff.ADD_REPLACE,
    (Change.DELETE, False): provider_pb2.PropertyDiff.DELETE,
    (Change.DELETE, True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    (Change.UPDATE, False): provider_pb2.PropertyDiff.UPDATE,
    (Change.UPDATE, True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


class EngineLog:
    """The engine's log for one resource; a message that it does not take is not worth a failure."""

    def __init__(self, engine: engine_pb2_grpc.EngineStub | None, urn: str) -> None:
        self._engine = engine
        self._urn = urn

    async def status(self, message: str) -> None:
        """Show a passing message beside the resource."""
        await self._send(engine_pb2.INFO, message, passing=True)

    async def warning(self, message: str) -> None:
        """Tell the person, and go on."""
        await self._send(engine_pb2.WARNING, message)

    async def error(self, message: str) -> None:
        """Tell the person what is about to fail."""
        await self._send(engine_pb2.ERROR, message)

    async def _send(
        self, severity: engine_pb2.LogSeverity.ValueType, message: str, *, passing: bool = False
    ) -> None:
        if self._engine is None:
            return
        request = engine_pb2.LogRequest(severity=severity, message=message, urn=self._urn, ephemeral=passing)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._engine.Log(request)


class CommandProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The service. `Cancel`, a timeout, and the engine's going away all end the commands that run."""

    def __init__(self, engine_address: str | None) -> None:
        self._engine: engine_pb2_grpc.EngineStub | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._cancelled = False
        if engine_address:
            self._connect(engine_address)

    def _connect(self, engine_address: str) -> None:
        channel = grpc.aio.insecure_channel(engine_address, options=OPTIONS)
        self._engine = engine_pb2_grpc.EngineStub(channel)

    async def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: Context
    ) -> provider_pb2.ProviderHandshakeResponse:
        """Say what kinds of values this provider understands."""
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, accept_resources=True, accept_outputs=False
        )

    async def Attach(self, request: plugin_pb2.PluginAttach, context: Context) -> Empty:
        """Take the address of an engine that did not start this process."""
        self._connect(request.address)
        return Empty()

    async def GetPluginInfo(self, request: Empty, context: Context) -> plugin_pb2.PluginInfo:
        """Name the version."""
        return plugin_pb2.PluginInfo(version=VERSION)

    async def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: Context
    ) -> provider_pb2.GetSchemaResponse:
        """Hand out the schema."""
        return provider_pb2.GetSchemaResponse(schema=schema.package())

    async def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        """Accept any provider configuration: there is none to check."""
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        """Never replace a provider."""
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        """Say again, to engines that do not shake hands, what this provider understands."""
        return provider_pb2.ConfigureResponse(acceptSecrets=True, acceptResources=True, supportsPreview=True)

    async def Check(self, request: provider_pb2.CheckRequest, context: Context) -> provider_pb2.CheckResponse:
        """Check a resource's inputs, fill in the defaults, mark the secrets."""
        inputs, failures = schema.check_resource(_token(request.urn), read(request.news))
        return provider_pb2.CheckResponse(inputs=write(inputs), failures=_failures(failures))

    async def Diff(self, request: provider_pb2.DiffRequest, context: Context) -> provider_pb2.DiffResponse:
        """Compare a resource's old and new inputs."""
        found = provider.diff(
            _token(request.urn),
            read(request.old_inputs),
            read(request.olds),
            read(request.news),
            list(request.ignoreChanges),
        )
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            detailedDiff={path: provider_pb2.PropertyDiff(kind=KINDS[kind]) for path, kind in found.items()},
            hasDetailedDiff=True,
            diffs=sorted({_top(path) for path in found}),
            replaces=sorted({_top(path) for path, (_, replaces) in found.items() if replaces}),
        )

    async def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        """Create a resource."""
        work = provider.create(
            _token(request.urn),
            request.urn.rpartition("::")[2],
            read(request.properties),
            preview=request.preview,
            log=EngineLog(self._engine, request.urn),
        )
        identity, state = await self._do(work, request.timeout, context)
        return provider_pb2.CreateResponse(id=identity, properties=write(state))

    async def Read(self, request: provider_pb2.ReadRequest, context: Context) -> provider_pb2.ReadResponse:
        """Give back what the state says: commands cannot be read (pulumi-command#432)."""
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    async def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        """Update a resource."""
        state = read(request.olds)
        kept = {name: state[name] for name in request.ignoreChanges if name in state}
        work = provider.update(
            _token(request.urn),
            state,
            read(request.news) | kept,
            preview=request.preview,
            log=EngineLog(self._engine, request.urn),
        )
        return provider_pb2.UpdateResponse(properties=write(await self._do(work, request.timeout, context)))

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> Empty:
        """Delete a resource."""
        log = EngineLog(self._engine, request.urn)
        await self._do(
            provider.delete(_token(request.urn), read(request.properties), log), request.timeout, context
        )
        return Empty()

    async def Invoke(
        self, request: provider_pb2.InvokeRequest, context: Context
    ) -> provider_pb2.InvokeResponse:
        """Run `local.run`."""
        if request.tok != schema.LOCAL_RUN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Invoke {request.tok!r} not found")
        arguments, failures = schema.check_run(read(request.args))
        if failures:
            return provider_pb2.InvokeResponse(failures=_failures(failures))
        result = await self._do(provider.run(arguments, EngineLog(self._engine, "")), 0, context)
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(write(result))
        return response

    async def Cancel(self, request: Empty, context: Context) -> Empty:
        """End all that is under way, and refuse what would come after."""
        await self.stop()
        return Empty()

    async def stop(self) -> None:
        """End all that is under way: processes are killed, remote commands hung up."""
        self._cancelled = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _do(self, work: Coroutine[Any, Any, T], timeout: float, context: Context) -> T:
        """Run commands, within the resource's `customTimeouts` if it has one."""
        if self._cancelled:
            work.close()
            await context.abort(grpc.StatusCode.CANCELLED, "cancelled before it started")
        task = asyncio.ensure_future(asyncio.wait_for(work, timeout or None))
        self._work.add(task)
        try:
            return await task
        except CommandError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"not done within its timeout of {timeout:g} s"
            )
        except asyncio.CancelledError:
            if not self._cancelled:
                raise  # the engine has gone away, there is nobody to answer
            await context.abort(grpc.StatusCode.CANCELLED, "cancelled while it ran")
        finally:
            self._work.discard(task)
        raise AssertionError("abort returned")


def _token(urn: str) -> str:
    """The type of a resource: the last one in its URN's type path."""
    return urn.split("::")[2].rpartition("$")[2]


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _failures(failures: list[schema.Failure]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in failures]


@contextlib.asynccontextmanager
async def _until_signalled() -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    yield ended


async def serve(engine_address: str | None) -> None:
    """Serve until the engine ends this process; the port goes to stdout, as the engine expects it."""
    server = grpc.aio.server(options=OPTIONS)
    service = CommandProvider(engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    async with _until_signalled() as ended:
        await ended.wait()
    await service.stop()
    await server.stop(grace=1)
