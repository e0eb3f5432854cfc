"""Runs commands on the controller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Final

from .output import Output
from .properties import Properties, reveal

SHELL: Final = ("/bin/sh", "-c")
KILL_GRACE_S: Final = 2.0
"""How long to wait until killed processes have closed their output: one outside of the group may hold it."""


class _Process(asyncio.SubprocessProtocol):
    """Receives the output of a process; `ended` is set when it has exited and its output is closed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output.feed("stderr" if fd == 2 else "stdout", data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def run(inputs: Properties, command: str, previous: Mapping[str, str], output: Output) -> None:
    """Runs one of the commands of a `local.Command` until it ends; raises CommandError."""
    plain = reveal(inputs)
    stdin: str = plain.get("stdin") or ""
    starting = asyncio.ensure_future(
        asyncio.get_running_loop().subprocess_exec(
            lambda: _Process(output),
            *(plain.get("interpreter") or SHELL),
            plain[command],
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            cwd=plain.get("dir"),
            env=os.environ | plain.get("environment", {}) | previous,
            start_new_session=True,  # so that the whole process group can be killed
        )
    )
    try:
        # Shielded, because asyncio can hang when a start is cancelled half-way.
        transport, process = await asyncio.shield(starting)
        if stdin:
            _send(transport, stdin.encode())
        await asyncio.shield(process.ended)
    except OSError as error:
        problem = f"{(error.strerror or str(error)).lower()}: {error.filename}"
        raise output.failure(problem, command) from error
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, TimeoutError):
            transport, process = await starting
            os.killpg(transport.get_pid(), signal.SIGKILL)
            await asyncio.wait_for(process.ended, KILL_GRACE_S)
        raise
    status = transport.get_returncode() or 0
    if status:
        problem = f"signal: {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        raise output.failure(problem, command)


def _send(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    pipe = transport.get_pipe_transport(0)
    if isinstance(pipe, asyncio.WriteTransport):
        pipe.write(data)
        pipe.close()
