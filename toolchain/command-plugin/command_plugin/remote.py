"""Commands on other machines: one SSH connection per command, dialled as the official plugin does.

asyncssh carries the connections. paramiko would need threads, one for each connection and more for its
streams, and takes twice the processor's time to copy a file; the system's `ssh` takes neither passwords nor
keys that are not files.

Connections are not kept between commands. A new one takes 40 ms, of which 5 are work of this process, and
that each command dials anew is something that users rely on: a firewall change that locks them out fails at
the next command, not later.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import asyncssh

from .output import CommandError, Log, Output
from .properties import Properties, Value, reveal
from .session import Channel, Session, hang_up

T = TypeVar("T")

FIRST_DELAY: Final = 0.1
BACKOFF: Final = 1.5
LONGEST_DELAY: Final = 5.0
"""The pauses between dials: those of the official plugin (pulumi/pulumi, sdk/go/common/util/retry)."""

HANDSHAKES: Final = 5
PATIENCE: Final = 5.0
"""sshd begins to drop connections when 10 are not yet logged in (MaxStartups 10:30:100), and a burst of
commands would lose time to retries. So at most 5 handshakes with one server are under way at once: fewer than
10, since sshd counts a login for a moment longer than its client. One that has waited 5 s for its turn goes
ahead, lest a server that accepts connections and then says nothing holds up the rest."""

KEEPALIVE_INTERVAL: Final = 15
KEEPALIVE_COUNT: Final = 4
"""A host that has gone away ends the command after a minute; the official plugin waits for ever."""

ACCEPT_ENV: Final = (
    "This only works if your SSH server is configured to accept these variables via AcceptEnv. "
    "Alternatively, if a Bash-like shell runs the command on the remote host, you could prefix the command "
    "itself with the variables in the form 'VAR=value command'"
)

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""The ciphers of OpenSSH's default, the quickest for large files first."""

logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in: the `connection` of a resource, or the proxy in it."""

    host: str
    port: int
    user: str
    password: str | None
    private_key: str | None
    private_key_password: str | None
    agent_socket_path: str | None
    host_key: str | None
    dial_error_limit: int
    per_dial_timeout: int
    proxy: Self | None

    @classmethod
    def of(cls, connection: Value) -> Self:
        """The endpoint that a `connection` property describes; Check has filled in the defaults."""
        plain = reveal(connection)
        return cls(
            host=plain["host"],
            port=int(plain.get("port", 22)),
            user=plain.get("user", "root"),
            password=plain.get("password"),
            private_key=plain.get("privateKey"),
            private_key_password=plain.get("privateKeyPassword"),
            agent_socket_path=plain.get("agentSocketPath"),
            host_key=plain.get("hostKey"),
            dial_error_limit=int(plain.get("dialErrorLimit", 10)),
            per_dial_timeout=int(plain.get("perDialTimeout", 15)),
            proxy=cls.of(plain["proxy"]) if "proxy" in plain else None,
        )

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


_handshakes: defaultdict[tuple[str, int], asyncio.Semaphore] = defaultdict(
    lambda: asyncio.Semaphore(HANDSHAKES)
)


@contextlib.asynccontextmanager
async def dial(endpoint: Endpoint, log: Log) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to a machine, through its proxy if it has one; closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        tunnel = None
        if endpoint.proxy:
            tunnel = await stack.enter_async_context(_dial(endpoint.proxy, None, "Dial proxy", log))
        yield await stack.enter_async_context(_dial(endpoint, tunnel, "Dial", log))


@contextlib.asynccontextmanager
async def _dial(
    endpoint: Endpoint, tunnel: asyncssh.SSHClientConnection | None, label: str, log: Log
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    where = f"{label.lower()} {endpoint}"
    host_keys = _host_keys(endpoint, where)
    client_keys = _client_keys(endpoint, where)

    async def attempt() -> asyncssh.SSHClientConnection:
        async with (
            _turn(endpoint),
            asyncio.timeout(endpoint.per_dial_timeout or None),
            _agent_keys(endpoint) as agent,
        ):
            return await asyncssh.connect(
                endpoint.host,
                endpoint.port,
                tunnel=tunnel,
                username=endpoint.user,
                password=endpoint.password,
                client_keys=client_keys or agent or None,
                known_hosts=(host_keys, [], []) if host_keys else None,
                server_host_key_algs=_algorithms(host_keys),
                config=None,
                agent_path=None,
                x509_trusted_certs=None,
                gss_kex=False,
                gss_auth=False,
                encryption_algs=CIPHERS,
                compression_algs=None,
                login_timeout=0,
                keepalive_interval=KEEPALIVE_INTERVAL,
                keepalive_count_max=KEEPALIVE_COUNT,
            )

    connection = await _retry(attempt, endpoint, label, where, log)
    _acknowledge_at_once(connection)
    try:
        yield connection
    finally:
        connection.close()


def _acknowledge_at_once(connection: asyncssh.SSHClientConnection) -> None:
    """Have Linux acknowledge what arrives now, and not 40 ms later, in hope of data to go with it.

    sshd does not switch off Nagle's algorithm for sessions without a terminal: it holds back each small
    message until the one before is acknowledged, which doubles the time of a short command. Linux forgets the
    option soon, so it is set on each arrival. A connection through a proxy has no socket of its own.
    """
    own: socket.socket | None = connection.get_extra_info("socket")
    if own is None or sys.platform != "linux":
        return
    receive = connection.data_received

    def data_received(data: bytes, datatype: int | None = None) -> None:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        receive(data, datatype)

    connection.data_received = data_received  # type: ignore[method-assign]


async def _retry(
    attempt: Callable[[], Awaitable[T]], endpoint: Endpoint, label: str, where: str, log: Log
) -> T:
    """Dial until it succeeds, or has failed more than `dialErrorLimit` times; whatever the reason."""
    limit = endpoint.dial_error_limit
    failed = 0
    delay = FIRST_DELAY
    while True:
        try:
            return await attempt()
        except (OSError, asyncssh.Error, TimeoutError) as error:
            failed += 1
            if -1 < limit < failed:
                raise CommandError(
                    f"{where}: after {limit} failed attempts: {_explain(error, endpoint)}"
                ) from error
        await log.status(f"{label} {failed}/{limit if limit >= 0 else 'inf'} failed: retrying")
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads the dials of a burst
        delay = min(delay * BACKOFF, LONGEST_DELAY)


@contextlib.asynccontextmanager
async def _turn(endpoint: Endpoint) -> AsyncIterator[None]:
    """This dial's turn among those to one server."""
    turns = _handshakes[endpoint.host, endpoint.port]
    try:
        await asyncio.wait_for(turns.acquire(), PATIENCE)
    except TimeoutError:
        yield
        return
    try:
        yield
    finally:
        turns.release()


def _explain(error: Exception, endpoint: Endpoint) -> str:  # noqa: PLR0911 - one for each kind
    match error:
        case TimeoutError():
            return f"no answer within {endpoint.per_dial_timeout} s: is the host up, and the port open?"
        case asyncssh.HostKeyNotVerifiable():
            return "ssh: host key mismatch: the server's key is not the `hostKey` of the connection"
        case asyncssh.PermissionDenied():
            return f"ssh: unable to authenticate as {endpoint.user}: {error.reason}"
        case asyncssh.ConnectionLost():
            return (
                f"ssh: handshake failed: {error.reason}: is it an SSH server? has it too many logins at once?"
            )
        case asyncssh.DisconnectError():
            return f"ssh: handshake failed: {error.reason}"
        case OSError(errno=int(number)) if number > 0:
            return f"{os.strerror(number).lower()} ({error})"
    return str(error).lower()


def _host_keys(endpoint: Endpoint, where: str) -> list[asyncssh.SSHKey]:
    if endpoint.host_key is None:
        return []
    try:
        return [asyncssh.import_public_key(endpoint.host_key)]
    except asyncssh.KeyImportError as error:
        raise CommandError(f"{where}: failed to parse host key: {error}") from error


def _algorithms(host_keys: list[asyncssh.SSHKey]) -> list[str] | tuple[()]:
    """The signatures to ask of the server: those of the key that is expected of it."""
    return [name.decode() for key in host_keys for name in key.sig_algorithms] or ()


def _client_keys(endpoint: Endpoint, where: str) -> list[asyncssh.SSHKey]:
    if endpoint.private_key is None:
        return []
    try:
        return [_private_key(endpoint.private_key, endpoint.private_key_password)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise CommandError(f"{where}: ssh: cannot parse private key: {error}") from error


@functools.cache
def _private_key(text: str, password: str | None) -> asyncssh.SSHKey:
    """A private key, read once: to derive an encrypted key's own key takes a noticeable time on purpose."""
    return asyncssh.import_private_key(text, password)


@contextlib.asynccontextmanager
async def _agent_keys(endpoint: Endpoint) -> AsyncIterator[list[asyncssh.SSHKeyPair]]:
    """The keys of the SSH agent; officially too they are of use only where there is no private key."""
    path = endpoint.agent_socket_path or os.environ.get("SSH_AUTH_SOCK")
    if endpoint.private_key is not None or not path:
        yield []
        return
    async with asyncssh.connect_agent(path) as agent:
        yield list(await agent.get_keys())


async def run(
    inputs: Properties, command: str, previous: Mapping[str, str], *, output: Output, log: Log
) -> None:
    """Run one of the commands of a `remote.Command` to its end.

    The server may refuse the variables of the `previous` outputs, but not those of `environment`.
    """
    endpoint = Endpoint.of(inputs["connection"])
    environment: dict[str, str] = reveal(inputs.get("environment")) or {}
    stdin: str = reveal(inputs.get("stdin")) or ""
    async with dial(endpoint, log) as connection:
        session = Session(output)
        try:
            channel = await Channel.open(connection, session)
            for name in await channel.refused(environment):
                await log.error(f"Unable to set {name!r}. {ACCEPT_ENV}")
                raise CommandError(
                    f"{endpoint}: could not set environment variable {name!r}: ssh: setenv failed"
                )
            for name in await channel.refused(previous):
                await log.warning(f"Unable to set {name!r}. {ACCEPT_ENV}")
            await channel.execute(reveal(inputs[command]), stdin.encode())
            try:
                await session.wait()
            except asyncio.CancelledError:
                await hang_up(connection, session)
                raise
        except asyncssh.Error as error:
            raise CommandError(f"{endpoint}: {error.reason}") from error
    if session.status:
        raise output.failure(f"{endpoint}: Process exited with {session.status}", inputs, command)
