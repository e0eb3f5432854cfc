"""Small HTTP servers that stand for notebooks: one that works, and ones that are dead in different ways."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["on", "refusing", "silent", "unreachable", "resetting", "ending", "forbidding"]
"""How a notebook behaves. `refusing`: nothing listens. `silent`: it accepts connections and never answers.
`unreachable`: packets to it are dropped. `resetting`, `ending`: it closes the connection, by RST or by FIN,
in the middle of an answer. `forbidding`: it refuses websockets, and its answer never ends."""


@dataclass
class Notebook:
    """One server on the loopback interface; it answers with the head of the request that it got."""

    mode: Mode = "on"
    port: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    """The connections that it has."""
    _server: asyncio.Server | None = None
    _blockers: list[socket.socket] = field(default_factory=list)

    @property
    def target(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    async def become(self, mode: Mode) -> None:
        """Close all connections, and behave in another way at the same port."""
        if self._server:
            self._server.close()
        for writer in set(self.open):
            writer.transport.abort()
        for blocker in self._blockers:
            blocker.close()
        self._server, self._blockers, self.mode = None, [], mode
        if mode == "unreachable":
            await self._block()
        elif mode != "refusing" or not self.port:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, backlog=512, reuse_address=True
            )
            self.port = self._server.sockets[0].getsockname()[1]
            if mode == "refusing":
                self._server.close()

    async def _block(self) -> None:
        # Linux drops the SYN of a further connection while the queue of a listening socket is full.
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(0)
        self.port = listening.getsockname()[1]
        self._blockers.append(listening)
        for _ in range(3):
            filling = socket.socket()
            filling.setblocking(False)
            with suppress(BlockingIOError):
                filling.connect(("127.0.0.1", self.port))
            self._blockers.append(filling)
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await self._answer(head, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection can have another."""
        if self.mode == "silent":
            await reader.read()
            return False
        if b"\r\nupgrade: websocket\r\n" in head.lower():
            return await self._websocket(head, reader, writer)
        if b"\r\ncontent-length: " in head.lower():
            [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
            await reader.readexactly(int(length.partition(b": ")[2]))
        if self.mode in ("resetting", "ending"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.02)
            if self.mode == "resetting":
                reset(writer)
            return False
        writer.write(b"HTTP/1.1 200 OK\r\nServer: %d\r\nContent-Length: %d\r\n\r\n" % (self.port, len(head)))
        writer.write(b"" if head.startswith(b"HEAD ") else head)
        await writer.drain()
        return True

    async def _websocket(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if self.mode == "forbidding":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nhalf")
            await reader.read()
            return False
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        # The head first, then what comes: the proxy does not read the frames.
        writer.write(head)
        if self.mode == "resetting":
            await writer.drain()
            reset(writer)
            return False
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, as the kernel of a killed process with unread data does."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work returns
        """Run a coroutine in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Loop"]:
        """Run a loop, and close what is still open in it."""
        loop = cls()
        loop._thread.start()
        try:
            yield loop
        finally:
            loop.run(loop._cancel_all())
            loop._loop.call_soon_threadsafe(loop._loop.stop)
            loop._thread.join()
            loop._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


Start = Callable[[Mode], Notebook]


@contextmanager
def started(loop: Loop) -> Iterator[Start]:
    """Yields a function that starts a notebook."""
    notebooks: list[Notebook] = []

    def start(mode: Mode = "on") -> Notebook:
        notebook = Notebook()
        loop.run(notebook.become(mode))
        notebooks.append(notebook)
        return notebook

    yield start
    for notebook in notebooks:
        loop.run(notebook.become("refusing"))
