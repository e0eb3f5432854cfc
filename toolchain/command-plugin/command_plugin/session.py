"""One command on an open SSH connection, step by step: its environment, its start, its input, its end.

asyncssh sends environment variables without asking whether the server takes them (RFC 4254, 6.4), and the
official plugin fails when it does not. So this channel takes the steps of `asyncssh.SSHClientChannel.create`
one by one. They are not part of asyncssh's documented interface; its version is pinned, and the tests over a
real sshd notice a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Mapping
from typing import Final, Self

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR, OPEN_REQUEST_SESSION_FAILED
from asyncssh.packet import String

from .output import Output, Stream

RECEIVE_WINDOW: Final = 2 * 1024 * 1024
PACKET_SIZE: Final = 32 * 1024
HANG_UP: Final = """
for stat in /proc/[0-9]*/stat; do
    read -r line <"$stat" || continue
    set -- ${line##*) }
    if [ "$2" = "$PPID" ] && [ "$3" != "$$" ]; then kill -HUP "-$3"; fi
done 2>/dev/null
"""
HANGUP_GRACE: Final = 2.0
"""How long a command that was hung up has to end before its connection is closed."""

SIGNALS: Final = {
    "HUP": 1,
    "INT": 2,
    "QUIT": 3,
    "ABRT": 6,
    "KILL": 9,
    "SEGV": 11,
    "PIPE": 13,
    "ALRM": 14,
    "TERM": 15,
}


class Session(asyncssh.SSHClientSession[bytes]):
    """What arrives from one command."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.status: str | None = None
        """How it ended, when not well."""
        self._exited = False
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take output."""
        self._output.feed(Stream.STDERR if datatype == EXTENDED_DATA_STDERR else Stream.STDOUT, data)

    def eof_received(self) -> bool:
        """Stay open: a command may close its output long before it ends."""
        return True

    def exit_status_received(self, status: int) -> None:
        """Take the exit status."""
        self._exited = True
        self.status = f"status {status}" if status else None

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Take the signal that ended it."""
        self._exited = True
        self.status = f"status {128 + SIGNALS.get(signal, 0)} from signal {signal}"

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the channel's end."""
        if exc is None and not self._exited:
            exc = asyncssh.ConnectionLost("remote command exited without exit status or exit signal")
        self._error = exc
        self._ended.set()

    async def wait(self) -> None:
        """Wait until the command has ended and all of its output is here; raise what ended it before that."""
        await self._ended.wait()
        if self._error:
            raise self._error


class Channel(asyncssh.SSHClientChannel[bytes]):
    """A channel for one command."""

    @classmethod
    async def open(cls, connection: asyncssh.SSHClientConnection, session: Session) -> Self:
        """Open a channel; the command is not started yet."""
        loop = asyncio.get_running_loop()
        channel = cls(connection, loop, "replace", None, "strict", RECEIVE_WINDOW, PACKET_SIZE)
        packet = await channel._open(b"session")
        packet.check_end()
        channel._session = session
        session.connection_made(channel)
        return channel

    async def refused(self, environment: Mapping[str, str]) -> list[str]:
        """Offer the server some variables; those that it does not take."""
        offers = (
            self._make_request(b"env", String(name), String(value)) for name, value in environment.items()
        )
        answers = await asyncio.gather(*offers)
        return [name for name, taken in zip(environment, answers, strict=True) if not taken]

    async def execute(self, command: str, stdin: bytes) -> None:
        """Start the command and give it all of its input."""
        if not await self._make_request(b"exec", String(command)):
            raise asyncssh.ChannelOpenError(
                OPEN_REQUEST_SESSION_FAILED, "the server refused to run a command"
            )
        await self._start_reading()
        with contextlib.suppress(BrokenPipeError):  # it has ended without reading
            self.write(stdin)
            self.write_eof()


async def hang_up(connection: asyncssh.SSHClientConnection, session: Session) -> None:
    """Hang up the command that runs on a connection, as a closed terminal would, and give it a moment to end.

    Closing the connection does not end it, and sshd passes on no signals in the sessions of root. So a second
    session on the same connection sends the hangup to what the first one's server process has started.
    """
    with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
        async with asyncio.timeout(HANGUP_GRACE):
            await connection.run(f"exec /bin/sh -c {shlex.quote(HANG_UP)}")
            await session.wait()
