"""The output of a command: kept for the state, shown line by line, and quoted when the command fails."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from .properties import Properties, Secret, reveal, secret_strings
from .provider import OUTPUTS, CommandError, Show

LINE_LIMIT: Final = 16 * 1024
"""How many bytes of a line are shown while the command runs; the outputs have the whole line."""
BLOCK_LINES: Final = 100
"""How many lines go into one message when a command prints faster than the engine receives."""
TAIL_LINES: Final = 20
TAIL_CHARACTERS: Final = 2000
"""How much output an error quotes, because gRPC limits an error to 8 kB."""


class Output:
    """The output of one run of a command. As a context manager, it shows lines and waits for the last one."""

    def __init__(self, inputs: Properties, show: Show) -> None:
        logging = reveal(inputs.get("logging"))
        self._shown = [stream for stream in OUTPUTS if logging in {None, stream, "stdoutAndStderr"}]
        self._secrets = _secret_texts(inputs)
        self._show = show
        self._chunks: dict[str, list[bytes]] = {stream: [] for stream in OUTPUTS}
        self._partial = dict.fromkeys(OUTPUTS, b"")
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        """The lines that are not shown yet; None is the end."""
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._showing = asyncio.create_task(self._show_lines())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._showing is not None  # noqa: S101 - set on entry
        if isinstance(error, asyncio.CancelledError):
            self._showing.cancel()
            return
        for line in self._partial.values():
            if line:
                self._add_line(line)
        self._lines.put_nowait(None)
        await self._showing

    def feed(self, stream: str, data: bytes) -> None:
        """Takes what the command has printed on a stream."""
        self._chunks[stream].append(data)
        if stream not in self._shown:
            return
        for number, part in enumerate(data.split(b"\n")):
            if number:
                self._add_line(self._partial[stream])
                self._partial[stream] = b""
            self._partial[stream] += part[: LINE_LIMIT - len(self._partial[stream])]

    def _add_line(self, line: bytes) -> None:
        self._lines.put_nowait(self._hide(line.decode(errors="replace").rstrip("\r")))

    async def _show_lines(self) -> None:
        while (line := await self._lines.get()) is not None:
            block = [line]
            while not self._lines.empty() and len(block) < BLOCK_LINES:
                following = self._lines.get_nowait()
                if following is None:
                    self._lines.put_nowait(None)
                    break
                block.append(following)
            await self._show("\n".join(block))

    def _text(self, stream: str) -> str:
        return b"".join(self._chunks[stream]).decode(errors="replace").removesuffix("\n")

    @property
    def outputs(self) -> Properties:
        """What the command has printed, by stream, each without the last newline."""
        return {stream: self._text(stream) for stream in OUTPUTS}

    def failure(self, problem: str, command: str) -> CommandError:
        """Returns the error for a command that failed.

        The official plugin quotes the whole command and its whole output (pulumi-command#260), which may
        contain secrets. This error quotes the end of stderr; where stderr is empty and stdout may be shown,
        the end of stdout.
        """
        printed = self._tail("stderr")
        if not printed and "stdout" in self._shown:
            printed = self._tail("stdout")
        ending = f":\n{printed}" if printed else "; it printed no error"
        return CommandError(f"{problem}: running the `{command}` command{ending}")

    def _tail(self, stream: str) -> str:
        text = "\n".join(self._hide(self._text(stream)).splitlines()[-TAIL_LINES:])
        return text if len(text) <= TAIL_CHARACTERS else "…" + text[-TAIL_CHARACTERS:]

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def _secret_texts(inputs: Properties) -> list[str]:
    """The texts to hide: each secret, and each of its lines, because a shell may quote a line of a script.

    Short texts are left out, because they would hide common words. The connection is secret as a whole; of
    it, only the private keys are hidden, not the host.
    """
    connection = inputs.get("connection")
    inside = connection.value if isinstance(connection, Secret) else connection
    found: set[str] = set()
    for secret in secret_strings([inside, {**inputs, "connection": None}]):
        whole = secret.strip()
        found |= {whole} if len(whole) >= 4 else set()
        found |= {line for line in map(str.strip, whole.splitlines()) if len(line) >= 8}
    return sorted(found, key=len, reverse=True)
