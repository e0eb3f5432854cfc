"""Commands on this machine, and the files that they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from .output import CommandError, Output, Stream
from .properties import ARCHIVE, ASSET, SIGNATURE, Properties, Value, reveal

SHELL: Final = ("/bin/sh", "-c")
KILL_GRACE: Final = 2.0
"""How long killed processes have to close their output; one that has left its group may keep it open."""


class _Process(asyncio.SubprocessProtocol):
    """What arrives from a process; `ended` when it has exited and its output is closed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output.feed(Stream.STDERR if fd == 2 else Stream.STDOUT, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def run(inputs: Properties, command: str, previous: Mapping[str, str], output: Output) -> None:
    """Run one of the commands of a `local.Command`, or that of `local.run`, to its end."""
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
            start_new_session=True,  # so that all of it can be ended
        )
    )
    try:
        # Shielded, since asyncio sometimes waits for ever when a start is cancelled half-way.
        transport, process = await asyncio.shield(starting)
        if stdin:
            _send(transport, stdin.encode())
        await asyncio.shield(process.ended)
    except OSError as error:
        problem = f"{(error.strerror or str(error)).lower()}: {error.filename}"
        raise output.failure(problem, inputs, command) from error
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, TimeoutError):
            transport, process = await starting
            os.killpg(transport.get_pid(), signal.SIGKILL)
            await asyncio.wait_for(process.ended, KILL_GRACE)
        raise
    match transport.get_returncode():
        case None | 0:
            return
        case int(code) if code < 0:
            raise output.failure(f"signal: {signal.Signals(-code).name}", inputs, command)
        case code:
            raise output.failure(f"exit status {code}", inputs, command)


def _send(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    pipe = transport.get_pipe_transport(0)
    if isinstance(pipe, asyncio.WriteTransport):
        pipe.write(data)
        pipe.close()


def collect(inputs: Properties) -> Properties:
    """The `assets` and the `archive` that `assetPaths` and `archivePaths` ask for."""
    plain = reveal(inputs)
    directory = Path(plain.get("dir") or Path.cwd())
    found: Properties = {}
    if "assetPaths" in plain:
        found["assets"] = _assets(directory, plain["assetPaths"])
    if "archivePaths" in plain:
        found["archive"] = {SIGNATURE: ARCHIVE, "assets": _assets(directory, plain["archivePaths"])}
    return found


def _assets(directory: Path, patterns: list[str]) -> dict[str, Value]:
    """The files that match; a later pattern with `!` takes some away again."""
    rules = [(pattern.startswith("!"), _glob(pattern.removeprefix("!"))) for pattern in patterns]
    assets: dict[str, Value] = {}
    for path in _files(directory):
        name = path.relative_to(directory).as_posix()
        chosen = [excluded for excluded, rule in rules if rule.fullmatch(name)]
        if chosen and not chosen[-1]:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assets[name] = {SIGNATURE: ASSET, "path": str(path), "hash": digest}
    return assets


def _files(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory, onerror=_refuse):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def _refuse(error: OSError) -> None:
    problem = f"{(error.strerror or '').lower()}: {error.filename}"
    raise CommandError(f"cannot look for assets: {problem}") from error


_GLOB: Final = re.compile(
    r"(?P<any>\*\*)|(?P<some>\*)|(?P<one>\?)|\[(?P<negated>!)?(?P<set>[^\]]+)\]"
    r"|(?P<open>\{)|(?P<close>\})|(?P<comma>,)|\\(?P<escaped>.)|(?P<plain>.)",
    re.DOTALL,
)


def _glob(pattern: str) -> re.Pattern[str]:
    """A glob, as the official plugin reads it (github.com/gobwas/glob, separator `/`)."""
    depth = 0
    expression = ""
    for part in _GLOB.finditer(pattern):
        match part.lastgroup:
            case "any":
                expression += ".*"
            case "some":
                expression += "[^/]*"
            case "one":
                expression += "[^/]"
            case "set":
                inside = part["set"].replace("\\", r"\\").replace("^", r"\^")
                expression += f"[{'^' if part['negated'] else ''}{inside}]"
            case "open":
                depth += 1
                expression += "(?:"
            case "close" if depth:
                depth -= 1
                expression += ")"
            case "comma" if depth:
                expression += "|"
            case _:
                expression += re.escape(part["escaped"] or part[0])
    return re.compile(expression, re.DOTALL)
