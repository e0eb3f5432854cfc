"""What a command prints: kept for the outputs, shown line by line while it runs, quoted when it fails."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from enum import Enum
from types import TracebackType
from typing import Final, Protocol, Self

from .properties import Properties, Secret, reveal, secret_strings

LINE_LIMIT: Final = 16 * 1024
"""How much of one line is shown while the command runs; the outputs have all of it."""
TAIL_LINES: Final = 20
TAIL_CHARACTERS: Final = 2000
"""How much of what it printed is quoted when it fails: errors have to fit into gRPC's 8 kB of metadata."""

_WORD: Final = r"""(?:'[^']*'|"[^"]*"|\$\([^)]*\)|\\.|[^\s;'"\\])*+"""
_PREAMBLE: Final = re.compile(rf"(?:\s+|;|&&|#[^\n]*|set [^\n]*|(?:export )?\w+={_WORD}(?=[\s;]|$))*+")
"""What may stand before a script's first statement: comments, options, and variables, which are not shown."""


class Stream(Enum):
    """The two streams of a command."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Log(Protocol):
    """The engine's log, for one resource."""

    async def status(self, message: str) -> None:
        """Show a passing message beside the resource."""

    async def warning(self, message: str) -> None:
        """Tell the person, and go on."""

    async def error(self, message: str) -> None:
        """Tell the person what is about to fail."""


class CommandError(Exception):
    """A command that could not be run, or failed; the message is for the person who wrote it."""


class Output:
    """The output of one run of a command; as a context, it shows lines until all are shown."""

    def __init__(self, inputs: Properties, log: Log) -> None:
        logging = reveal(inputs.get("logging"))
        self._shown = {stream for stream in Stream if logging in {None, stream.value, "stdoutAndStderr"}}
        self._secrets = _to_hide(inputs)
        self._log = log
        self._chunks: dict[Stream, list[bytes]] = {stream: [] for stream in Stream}
        self._partial: dict[Stream, bytes] = dict.fromkeys(Stream, b"")
        self._lines: deque[str] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._shower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._shower = asyncio.create_task(self._show())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._shower is not None  # noqa: S101 - set on entry
        if isinstance(error, asyncio.CancelledError):
            self._shower.cancel()
            return
        for stream in self._shown:
            if self._partial[stream]:
                self._take_line(self._partial[stream])
        self._ended = True
        self._wake.set()
        await self._shower

    def feed(self, stream: Stream, data: bytes) -> None:
        """Take what the command has just printed."""
        self._chunks[stream].append(data)
        if stream not in self._shown:
            return
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._partial[stream] + lines[0]
            self._partial[stream] = rest[:LINE_LIMIT]
        elif len(self._partial[stream]) < LINE_LIMIT:
            self._partial[stream] += rest[:LINE_LIMIT]
        for line in lines:
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        self._lines.append(self._hide(line[:LINE_LIMIT].decode(errors="replace").rstrip("\r")))
        self._wake.set()

    async def _show(self) -> None:
        while self._lines or not self._ended:
            if self._lines:
                # A command that prints faster than the engine listens is shown in blocks.
                block = [self._lines.popleft()]
                while self._lines and len(block) < 100:
                    block.append(self._lines.popleft())
                await self._log.status("\n".join(block))
            else:
                self._wake.clear()
                await self._wake.wait()

    def text(self, stream: Stream) -> str:
        """All that it printed on one stream, without the last newline."""
        return b"".join(self._chunks[stream]).decode(errors="replace").removesuffix("\n")

    @property
    def outputs(self) -> Properties:
        """The two outputs of the resource."""
        return {stream.value: self.text(stream) for stream in Stream}

    def failure(self, status: str, inputs: Properties, command: str) -> CommandError:
        """The error for a command that did not succeed.

        The official plugin quotes the whole command and all that it printed, whatever is in them
        (pulumi-command#260). Here it is the first statement of a command that is not secret, and the end of
        stderr, or of stdout where stderr is empty and stdout may be shown.
        """
        title = f": running {_first_line(reveal(inputs[command]))!r}"
        if isinstance(inputs[command], Secret):
            title = f": running the `{command}` command, which is secret"
        printed = self._tail(Stream.STDERR)
        if not printed and Stream.STDOUT in self._shown:
            printed = self._tail(Stream.STDOUT)
        ending = f":\n{printed}" if printed else ", which printed no error"
        return CommandError(status + self._hide(title) + ending)

    def _tail(self, stream: Stream) -> str:
        lines = self._hide(self.text(stream)).splitlines()[-TAIL_LINES:]
        text = "\n".join(lines)
        return text if len(text) <= TAIL_CHARACTERS else "…" + text[-TAIL_CHARACTERS:]

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def _to_hide(inputs: Properties) -> list[str]:
    """The secret texts to hide in what is shown: whole, and line by line, as shells quote a script's lines.

    The connection is secret as a whole; of it only the keys and passwords are, not the host's name.
    """
    connection = inputs.get("connection")
    inside = connection.value if isinstance(connection, Secret) else connection
    found: set[str] = set()
    for secret in secret_strings([inside, {**inputs, "connection": None}]):
        found |= _texts(secret)
    return sorted(found, key=len, reverse=True)


def _texts(secret: str) -> set[str]:
    """The parts of a secret that are long enough not to hide what is common."""
    lines = {line.strip() for line in secret.splitlines()}
    return {line for line in lines if len(line) >= 8} | {
        whole for whole in [secret.strip()] if len(whole) >= 4
    }


def _first_line(command: str) -> str:
    """The first line that says what the command is: after its comments, options and environment."""
    line = command[_preamble(command) :].partition("\n")[0].strip()
    return line if len(line) <= 120 else line[:120] + "…"


def _preamble(command: str) -> int:
    match = _PREAMBLE.match(command)
    return match.end() if match else 0
