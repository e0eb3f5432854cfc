"""The plugin's protocol: Pulumi's ResourceProvider service over gRPC.

It is not built on the SDK's `pulumi.provider.experimental`. That server does not pass on the old inputs to
`Diff`, drops the hashes of assets, takes unknown values for strings, and puts a Python traceback into every
error.
"""

# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from . import VERSION, check, provider
from .properties import read, write
from .protocol import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext

MESSAGE_LIMIT: Final = 400 * 1024 * 1024
OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
]
"""The engine's own limit in bytes; the whole input or output of a command is in one message."""


class CommandProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The service. `Cancel`, a timeout, and a call that the engine drops end the commands that run."""

    def __init__(self, engine_address: str | None) -> None:
        self._engine: engine_pb2_grpc.EngineStub | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._cancelled = False
        if engine_address:
            channel = grpc.aio.insecure_channel(engine_address, options=OPTIONS)
            self._engine = engine_pb2_grpc.EngineStub(channel)

    async def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: Context
    ) -> provider_pb2.ProviderHandshakeResponse:
        """Returns what kinds of values this provider understands."""
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, accept_resources=True, accept_outputs=False
        )

    async def GetPluginInfo(self, request: Empty, context: Context) -> plugin_pb2.PluginInfo:
        """Returns the version."""
        return plugin_pb2.PluginInfo(version=VERSION)

    async def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        """Accepts any provider configuration, because it has no effect."""
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        """Never replaces a provider."""
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        """Returns the same as `Handshake`, for engines that do not call that."""
        return provider_pb2.ConfigureResponse(acceptSecrets=True, acceptResources=True, supportsPreview=True)

    async def Check(self, request: provider_pb2.CheckRequest, context: Context) -> provider_pb2.CheckResponse:
        """Checks a resource's inputs, fills in the defaults, marks the secrets.

        A failure does not name its property, because the engine would print the value, secrets included.
        """
        inputs, reasons = check.check(_token(request.urn), read(request.news))
        return provider_pb2.CheckResponse(
            inputs=write(inputs), failures=[provider_pb2.CheckFailure(reason=reason) for reason in reasons]
        )

    async def Diff(self, request: provider_pb2.DiffRequest, context: Context) -> provider_pb2.DiffResponse:
        """Compares a resource's old and new inputs.

        Where `triggers` as a whole comes or goes, the resource is replaced. For a change inside the list, the
        SDK asks for that itself, with `replace_on_changes=["triggers[*]"]`.
        """
        if request.old_inputs == request.news and not request.ignoreChanges:
            return provider_pb2.DiffResponse(
                changes=provider_pb2.DiffResponse.DIFF_NONE, hasDetailedDiff=True
            )
        found = provider.diff(
            read(request.old_inputs), read(request.olds), read(request.news), list(request.ignoreChanges)
        )
        kinds = {
            path: change.name + ("_REPLACE" if path == "triggers" else "") for path, change in found.items()
        }
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=provider_pb2.PropertyDiff.Kind.Value(kind))
                for path, kind in kinds.items()
            },
            hasDetailedDiff=True,
            diffs=sorted({path.partition(".")[0].partition("[")[0] for path in found}),
            replaces=["triggers"] if "triggers" in found else [],
        )

    async def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        """Creates a resource."""
        work = provider.create(
            _token(request.urn),
            request.urn.rpartition("::")[2],
            read(request.properties),
            preview=request.preview,
            show=partial(self._show, request.urn),
        )
        identity, state = await self._do(work, request.timeout, context)
        return provider_pb2.CreateResponse(id=identity, properties=write(state))

    async def Read(self, request: provider_pb2.ReadRequest, context: Context) -> provider_pb2.ReadResponse:
        """Returns the state, because commands cannot be read (pulumi-command#432)."""
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    async def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        """Updates a resource."""
        state = read(request.olds)
        kept = {name: state[name] for name in request.ignoreChanges if name in state}
        work = provider.update(
            _token(request.urn),
            state,
            read(request.news) | kept,
            preview=request.preview,
            show=partial(self._show, request.urn),
        )
        return provider_pb2.UpdateResponse(properties=write(await self._do(work, request.timeout, context)))

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> Empty:
        """Deletes a resource."""
        show = partial(self._show, request.urn)
        work = provider.delete(_token(request.urn), read(request.properties), show)
        await self._do(work, request.timeout, context)
        return Empty()

    async def Invoke(
        self, request: provider_pb2.InvokeRequest, context: Context
    ) -> provider_pb2.InvokeResponse:
        """Refuses functions, which only the official plugin has."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, check.absent(request.tok))
        raise AssertionError("abort returned")

    async def Cancel(self, request: Empty, context: Context) -> Empty:
        """Ends all commands that run, and refuses later ones."""
        await self.stop()
        return Empty()

    async def stop(self) -> None:
        """Ends all commands that run: local processes are killed, remote ones get SIGHUP."""
        self._cancelled = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _show(self, urn: str, message: str) -> None:
        """Shows a message beside a resource until the next one; an engine that has gone is no error."""
        if self._engine:
            request = engine_pb2.LogRequest(
                severity=engine_pb2.INFO, message=message, urn=urn, ephemeral=True
            )
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._engine.Log(request)

    async def _do(self, work: Coroutine[Any, Any, T], timeout_s: float, context: Context) -> T:
        """Runs commands, within the resource's `customTimeouts` if it has one."""
        if self._cancelled:
            work.close()
            await context.abort(grpc.StatusCode.CANCELLED, "cancelled before it started")
        task = asyncio.ensure_future(asyncio.wait_for(work, timeout_s or None))
        self._work.add(task)
        try:
            return await task
        except provider.CommandError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"not done within its timeout of {timeout_s:g} s"
            )
        except asyncio.CancelledError:
            if not self._cancelled:
                raise  # the engine has dropped the call
            await context.abort(grpc.StatusCode.CANCELLED, "cancelled while it ran")
        finally:
            self._work.discard(task)
        raise AssertionError("abort returned")


def _token(urn: str) -> str:
    """The type of a resource: the last part of its URN's type path."""
    return urn.split("::")[2].rpartition("$")[2]


async def serve(engine_address: str | None) -> None:
    """Serves until the engine ends this process. The engine reads the port from stdout."""
    server = grpc.aio.server(options=OPTIONS)
    service = CommandProvider(engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await ended.wait()
    await service.stop()
    await server.stop(grace=1)
