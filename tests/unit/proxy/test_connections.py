"""Every connection ends: a dead notebook, or a visitor who has left, keeps no socket and no memory."""

import asyncio
import random
import re
import socket
import subprocess
from collections import Counter
from contextlib import suppress
from typing import get_args

import pytest
import requests

from tests.unit.proxy.notebooks import Loop, Mode, Notebook, Start, reset
from tests.unit.proxy.running import ADDRESS, Proxy, until
from tests.unit.proxy.test_routes import route, upgrade

NOTEBOOKS = 12
ROUNDS = 3
REQUESTS = 3400
WEBSOCKETS = 340
AT_ONCE = 40
MEMORY = 24
"""MiB by which the collector of Node may be behind."""


@pytest.mark.parametrize("mode", ["resetting", "ending"])
def test_connection_of_an_answer_that_breaks_off_is_closed(proxy: Proxy, start: Start, mode: Mode) -> None:
    # http-proxy-3 alone lets the visitor wait for the rest for ever.
    proxy.routes([route("alice", start(mode))])
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        proxy.get("/alice/file")
    until(lambda: proxy.connections() == 0)


def test_connection_to_a_notebook_is_closed_when_the_visitor_leaves(proxy: Proxy, start: Start) -> None:
    proxy.routes([route("alice", start("silent"))])
    for head in ("", "\r\nConnection: Upgrade\r\nUpgrade: websocket"):
        connection = socket.create_connection((ADDRESS, proxy.port), timeout=10)
        connection.sendall(f"GET /alice/ws HTTP/1.1\r\nHost: a{head}\r\n\r\n".encode())
        until(lambda: proxy.connections() == 2)
        connection.close()
        until(lambda: proxy.connections() == 0)


def test_connection_of_a_refused_websocket_is_closed(proxy: Proxy, start: Start) -> None:
    proxy.routes([route("alice", start("forbidding"))])
    connection, answer = upgrade(proxy, "/alice/ws")
    assert answer.startswith("HTTP/1.1 403 ")
    connection.close()
    until(lambda: proxy.connections() == 0)


def test_connection_of_a_websocket_that_is_reset_does_not_end_the_proxy(
    proxy: Proxy, start: Start, loop: Loop
) -> None:
    # http-proxy-3 throws an error of the visitor's connection if nobody listens for it.
    proxy.routes([route("alice", start("on"))])
    pid = proxy.pid

    async def visit() -> None:
        reader, writer = await asyncio.open_connection(ADDRESS, proxy.port)
        writer.write(request("/alice/ws", websocket=True))
        await reader.readuntil(b"GET /alice/ws")
        reset(writer)

    for _ in range(5):
        loop.run(visit())
    until(lambda: proxy.connections() == 0)
    assert proxy.pid == pid
    assert proxy.is_healthy()


def test_connection_of_a_websocket_is_probed_at_both_ends(proxy: Proxy, start: Start) -> None:
    # Linux's own default is two hours, after which a host that lost its power is noticed.
    alice = start("on")
    proxy.routes([route("alice", alice)])
    connection, _ = upgrade(proxy, "/alice/ws")
    with connection:
        ends = f"( sport = :{proxy.port} or dport = :{alice.port} )"
        listed = subprocess.run(
            ["ss", "-tnoH", "state", "established", ends], capture_output=True, text=True, check=True
        )
        seconds = re.findall(r"timer:\(keepalive,(\d+)sec,0\)", listed.stdout)
        assert len(seconds) == 2, listed.stdout
        assert all(int(one) <= 30 for one in seconds)


@pytest.mark.parametrize("mode", ["resetting", "ending"])
def test_connection_of_a_websocket_gets_no_page_after_it_was_open(
    proxy: Proxy, start: Start, loop: Loop, mode: Mode
) -> None:
    alice = start("on")
    proxy.routes([route("alice", alice)])
    connection, _ = upgrade(proxy, "/alice/ws")
    for writer in list(alice.open):
        loop.run(close(writer, mode))
    with connection, suppress(ConnectionResetError):
        assert connection.recv(65536) == b""
    until(lambda: proxy.connections() == 0)


async def close(writer: asyncio.StreamWriter, mode: Mode) -> None:
    if mode == "resetting":
        reset(writer)
    else:
        writer.close()


def request(path: str, *, websocket: bool = False) -> bytes:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket" if websocket else "Connection: close"
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n\r\n".encode()


async def visit(proxy: Proxy, path: str, chance: random.Random, *, websocket: bool) -> str:
    """Send one request as a visitor who may leave at any time; return the status."""
    patience = chance.uniform(0.05, 3)
    reader, writer = await asyncio.open_connection(ADDRESS, proxy.port)
    try:
        async with asyncio.timeout(patience):
            writer.write(request(path, websocket=websocket))
            head = (await reader.readline()).decode()
            if " 101 " in head:
                for _ in range(5):
                    writer.write(b"ping")
                    await reader.read(65536)
                    await asyncio.sleep(chance.uniform(0, 0.1))
            else:
                await reader.read()
    except (TimeoutError, OSError):
        head = "none"
    if chance.random() < 0.3 and not writer.is_closing():
        reset(writer)
    writer.close()
    return head.split(" ", 2)[1] if " " in head else head


async def soak(proxy: Proxy, notebooks: list[Notebook], seed: int) -> Counter[str]:
    """Visit the notebooks, a third of which is dead half of the time; count the statuses."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    dead = [mode for mode in get_args(Mode) if mode != "on"]
    gate = asyncio.Semaphore(AT_ONCE)
    seen: Counter[str] = Counter()

    async def one(number: int) -> None:
        async with gate:
            path = f"/n{chance.randrange(NOTEBOOKS)}/"
            is_websocket = number % (REQUESTS // WEBSOCKETS) == 0
            seen[await visit(proxy, path, chance, websocket=is_websocket)] += 1

    async def fail() -> None:
        while True:
            for notebook in notebooks[: NOTEBOOKS // 3]:
                await notebook.become(chance.choice(dead) if notebook.mode == "on" else "on")
            await asyncio.sleep(0.7)

    failing = asyncio.create_task(fail())
    await asyncio.gather(*(one(number) for number in range(REQUESTS)))
    failing.cancel()
    with suppress(asyncio.CancelledError):
        await failing
    for notebook in notebooks:
        await notebook.become("on")
    return seen


def test_connections_soak(proxy: Proxy, start: Start, loop: Loop) -> None:
    notebooks = [start("on") for _ in range(NOTEBOOKS)]
    proxy.routes([route(f"n{number}", notebook) for number, notebook in enumerate(notebooks)])
    pid = proxy.pid
    seen: Counter[str] = Counter()
    memory = []
    for number in range(ROUNDS):
        seen += loop.run(soak(proxy, notebooks, number))
        # Without a connection to a visitor or a notebook; those to a dead one end by themselves.
        until(lambda: proxy.connections() == 0, 30)
        memory.append(proxy.memory())
    print(f"statuses {dict(seen)}, MiB after each round {memory}")
    assert seen["200"] > ROUNDS * REQUESTS / 2
    assert seen["101"] > ROUNDS * WEBSOCKETS / 2
    assert seen["503"] > 0
    # The first round fills caches and compiles.
    assert memory[-1] - memory[0] < MEMORY
    assert proxy.pid == pid
    for number in range(NOTEBOOKS):
        assert proxy.get(f"/n{number}/").status_code == 200
