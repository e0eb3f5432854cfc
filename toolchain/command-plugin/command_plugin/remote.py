"""Runs commands on hosts, and copies files to them, over one SSH connection for each.

The SSH library is asyncssh, because paramiko needs threads, and ssh(1) takes no key that is not in a file.

No connection is kept between two commands. A new one takes 40 ms, and the next command fails where a firewall
rule has cut off the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shlex
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

from .output import Output
from .properties import Properties, reveal
from .provider import CommandError, Show

FIRST_DELAY_S: Final = 0.1
BACKOFF: Final = 1.5
LONGEST_DELAY_S: Final = 5.0
"""The pauses between dials, as with the official plugin (pulumi/pulumi, sdk/go/common/util/retry)."""
LOGINS: Final = 5
"""How many logins to one server are under way at once. sshd drops connections when more than 10 have not
logged in (MaxStartups 10:30:100), and it counts a login for a moment longer than its client does."""
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_COUNT: Final = 4
"""After so many intervals without an answer, the command fails; the official plugin waits forever."""
HANG_UP: Final = Path(__file__).with_name("hang-up.sh")
HANG_UP_GRACE_S: Final = 2.0
"""How long to wait until a command that got SIGHUP has ended."""

logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Endpoint:
    """Where and how to log in: a `connection`, or the `proxy` in it."""

    host: str
    port: int
    user: str
    private_key: str | None
    host_key: str | None
    dial_error_limit: int
    """How many dials may fail before the last one; without limit if negative."""
    per_dial_timeout_s: int
    """How long TCP connection and login may take together; without limit if 0."""
    proxy: Self | None

    @classmethod
    def of(cls, connection: Mapping[str, Any]) -> Self:
        """Reads a `connection` property after `Check`, which has filled in the defaults."""
        return cls(
            host=connection["host"],
            port=int(connection["port"]),
            user=connection["user"],
            private_key=connection.get("privateKey"),
            host_key=connection.get("hostKey"),
            dial_error_limit=int(connection["dialErrorLimit"]),
            per_dial_timeout_s=int(connection["perDialTimeout"]),
            proxy=cls.of(connection["proxy"]) if "proxy" in connection else None,
        )

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


_logins: defaultdict[tuple[str, int], asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOGINS))


@contextlib.asynccontextmanager
async def dial(endpoint: Endpoint, show: Show) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Opens a connection, through the proxy if there is one; closes it at the end. Raises CommandError."""
    async with contextlib.AsyncExitStack() as stack:
        tunnel = None
        if endpoint.proxy:
            tunnel = await _dial(endpoint.proxy, None, "Dial proxy", show)
            stack.callback(tunnel.close)
        connection = await _dial(endpoint, tunnel, "Dial", show)
        stack.callback(connection.close)
        yield connection


async def _dial(
    endpoint: Endpoint, tunnel: asyncssh.SSHClientConnection | None, label: str, show: Show
) -> asyncssh.SSHClientConnection:
    """Dials until it succeeds, or until more than `dialErrorLimit` dials have failed."""
    where, limit = f"{label.lower()} {endpoint}", endpoint.dial_error_limit
    private_key, host_key = _keys(endpoint, where)
    failed, delay = 0, FIRST_DELAY_S
    while True:
        try:
            async with _logins[endpoint.host, endpoint.port]:
                return await _log_in(endpoint, tunnel, private_key, host_key)
        except (OSError, asyncssh.Error) as error:  # a timeout is an OSError
            failed += 1
            if -1 < limit < failed:
                reason = _explain(error, endpoint)
                raise CommandError(f"{where}: after {limit} failed attempts: {reason}") from error
        await show(f"{label} {failed}/{limit if limit >= 0 else 'inf'} failed: retrying")
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the dials of a burst
        delay = min(delay * BACKOFF, LONGEST_DELAY_S)


async def _log_in(
    endpoint: Endpoint,
    tunnel: asyncssh.SSHClientConnection | None,
    private_key: asyncssh.SSHKey | None,
    host_key: asyncssh.SSHKey | None,
) -> asyncssh.SSHClientConnection:
    """Logs in with the private key, or with the keys of the ssh-agent where there is none."""
    async with asyncio.timeout(endpoint.per_dial_timeout_s or None), contextlib.AsyncExitStack() as stack:
        keys: list[Any] = [private_key] if private_key else []
        if not keys and (agent := os.environ.get("SSH_AUTH_SOCK")):
            keys += await (await stack.enter_async_context(asyncssh.connect_agent(agent))).get_keys()
        return await asyncssh.connect(
            endpoint.host,
            endpoint.port,
            tunnel=tunnel,
            username=endpoint.user,
            client_keys=keys or None,
            agent_path=None,
            preferred_auth="publickey",
            known_hosts=([host_key], [], []) if host_key else None,
            server_host_key_algs=[name.decode() for name in host_key.sig_algorithms] if host_key else (),
            config=None,
            # the quickest ones first, for large files
            encryption_algs="^aes128-gcm@openssh.com,aes256-gcm@openssh.com",
            keepalive_interval=KEEPALIVE_INTERVAL_S,
            keepalive_count_max=KEEPALIVE_COUNT,
        )


def _keys(endpoint: Endpoint, where: str) -> tuple[asyncssh.SSHKey | None, asyncssh.SSHKey | None]:
    """Reads the private key and the host key."""
    try:
        private = asyncssh.import_private_key(endpoint.private_key) if endpoint.private_key else None
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise CommandError(f"{where}: ssh: cannot parse private key: {error}") from error
    try:
        return private, asyncssh.import_public_key(endpoint.host_key) if endpoint.host_key else None
    except asyncssh.KeyImportError as error:
        raise CommandError(f"{where}: failed to parse host key: {error}") from error


def _explain(error: Exception, endpoint: Endpoint) -> str:
    match error:
        case TimeoutError():
            return f"no answer within {endpoint.per_dial_timeout_s} s: is the host up, and the port open?"
        case asyncssh.HostKeyNotVerifiable():
            return "ssh: host key mismatch: the server's key is not the `hostKey` of the connection"
        case asyncssh.PermissionDenied():
            return f"ssh: unable to authenticate as {endpoint.user}: {error.reason}"
        case asyncssh.Error():
            return f"ssh: {error.reason}"
        case OSError(errno=int(number)) if number > 0:
            return f"{os.strerror(number).lower()} ({error})"
    return str(error).lower()


class _Session(asyncssh.SSHClientSession[bytes]):
    """Receives the output and the end of one command."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.problem: str | None = None
        """How the command failed."""
        self._exited = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._output.feed("stderr" if datatype == EXTENDED_DATA_STDERR else "stdout", data)

    def eof_received(self) -> bool:
        return True  # stay open: a command may close its output before it ends

    def exit_status_received(self, status: int) -> None:
        self._exited = True
        self.problem = f"Process exited with status {status}" if status else None

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._exited = True
        self.problem = f"Process exited from signal {signal}"

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._exited:
            self.problem = f"the connection ended before the command did ({exc or 'closed by the server'})"
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Waits until the command has ended and its output is complete."""
        await asyncio.shield(self._ended)


async def run(
    inputs: Properties, command: str, previous: Mapping[str, str], output: Output, show: Show
) -> None:
    """Runs one of the commands of a `remote.Command` until it ends; raises CommandError.

    `previous` are environment variables, which a server that does not accept them ignores.
    """
    plain = reveal(inputs)
    endpoint = Endpoint.of(plain["connection"])
    async with dial(endpoint, show) as connection:
        session = _Session(output)
        try:
            channel, _ = await connection.create_session(
                lambda: session, plain[command], env=list(previous.items()), encoding=None
            )
        except asyncssh.Error as error:
            raise CommandError(f"{endpoint}: {error.reason}") from error
        try:
            with contextlib.suppress(BrokenPipeError):  # the command has ended without reading
                channel.write((plain.get("stdin") or "").encode())
                channel.write_eof()
            await session.wait()
        except asyncio.CancelledError:
            await _hang_up(connection, session)
            raise
    if session.problem:
        raise output.failure(f"{endpoint}: {session.problem}", command)


async def _hang_up(connection: asyncssh.SSHClientConnection, session: _Session) -> None:
    """Sends SIGHUP to the command from a second session and waits for its end.

    The end of a connection does not end the command, and sshd forwards no signals to processes of root.
    """
    with contextlib.suppress(OSError, asyncssh.Error):
        async with asyncio.timeout(HANG_UP_GRACE_S):
            await connection.run(f"exec /bin/sh -c {shlex.quote(HANG_UP.read_text())}")
            await session.wait()


async def copy(connection: Mapping[str, Any], source: str, remote_path: str, show: Show) -> None:
    """Copies a file over SFTP; raises CommandError.

    Into a directory it is copied under its own name. Otherwise it is copied to the path, whose parent
    directories are created.
    """
    endpoint = Endpoint.of(connection)
    what = f"copy {source} to {endpoint}:{remote_path}"
    if not Path(source).is_file():
        raise CommandError(f"{what}: open {source}: no such file or directory")
    async with dial(endpoint, show) as ssh:
        try:
            async with ssh.start_sftp_client() as sftp:
                await sftp.makedirs(PurePosixPath(remote_path).parent, exist_ok=True)
                await sftp.put(source, remote_path, follow_symlinks=True)
        except (asyncssh.Error, OSError) as error:
            raise CommandError(f"{what}: {error}") from error
