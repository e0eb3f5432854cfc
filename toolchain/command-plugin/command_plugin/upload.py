"""Files to other machines over SFTP, with the official plugin's rules for paths.

| source      | remote path is a directory | remote path is not there | remote path is a file |
|-------------|----------------------------|--------------------------|-----------------------|
| directory   | into remote/directory      | into remote/directory    | error                 |
| directory/  | its contents into remote   | its contents into remote | error                 |
| file        | remote/file                | remote                   | overwritten           |
| text        | error                      | remote                   | overwritten           |
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import asyncssh

from .output import CommandError, Log
from .remote import Endpoint, dial

BLOCK_SIZE: Final = 255 * 1024
"""The largest block that OpenSSH's SFTP server takes: fewer answers to wait for and to handle."""
BLOCKS_IN_FLIGHT: Final = 16


async def copy_path(endpoint: Endpoint, source: str, remote_path: str, log: Log) -> None:
    """Copy a file or a directory."""
    if not Path(source).exists():
        raise CommandError(f"cannot copy {source} to {endpoint}: open {source}: no such file or directory")
    async with _sftp(endpoint, log) as sftp:
        exists, is_directory = await _look(sftp, remote_path)
        if not Path(source).is_dir():
            if is_directory:
                remote_path = str(PurePosixPath(remote_path) / Path(source).name)
            elif not exists:
                await _make_directories(sftp, PurePosixPath(remote_path).parent)
            await _copy_file(sftp, Path(source), remote_path)
            return
        if exists and not is_directory:
            raise CommandError(f"{endpoint}: remote path {remote_path} exists but is not a directory")
        await _make_directories(sftp, PurePosixPath(remote_path))
        name = "" if source.endswith("/") else Path(source).name
        await _copy_directory(sftp, Path(source), PurePosixPath(remote_path) / name)


async def copy_text(endpoint: Endpoint, text: str, remote_path: str, log: Log) -> None:
    """Write a text to a file."""
    async with _sftp(endpoint, log) as sftp:
        _, is_directory = await _look(sftp, remote_path)
        if is_directory:
            raise CommandError(
                f"{endpoint}: remote path {remote_path} is a directory; "
                "when using a text asset, remotePath must be a file path"
            )
        await _make_directories(sftp, PurePosixPath(remote_path).parent)
        async with sftp.open(remote_path, "wb") as file:
            await file.write(text.encode())


async def copy_file(endpoint: Endpoint, local_path: str, remote_path: str, log: Log) -> None:
    """Copy one file to exactly this path, whose directory must be there: the older `CopyFile`."""
    if not Path(local_path).is_file():
        raise CommandError(
            f"cannot copy {local_path} to {endpoint}: open {local_path}: no such file or directory"
        )
    async with _sftp(endpoint, log) as sftp:
        await _copy_file(sftp, Path(local_path), remote_path)


@asynccontextmanager
async def _sftp(endpoint: Endpoint, log: Log) -> AsyncIterator[asyncssh.SFTPClient]:
    async with dial(endpoint, log) as connection:
        try:
            async with connection.start_sftp_client() as sftp:
                yield sftp
        except (asyncssh.Error, OSError) as error:
            what = f" ({_text(error.dstpath)})" if hasattr(error, "dstpath") else ""
            raise CommandError(f"{endpoint}: copy failed: {str(error).lower()}{what}") from error


def _text(path: bytes | str) -> str:
    return os.fsdecode(path)


async def _look(sftp: asyncssh.SFTPClient, path: str) -> tuple[bool, bool]:
    """Whether something is at a remote path, and whether it is a directory."""
    try:
        attributes = await sftp.stat(path)
    except asyncssh.SFTPNoSuchFile:
        return False, False
    return True, attributes.type == asyncssh.FILEXFER_TYPE_DIRECTORY


async def _make_directories(sftp: asyncssh.SFTPClient, path: PurePosixPath) -> None:
    await sftp.makedirs(str(path), exist_ok=True)


async def _copy_file(sftp: asyncssh.SFTPClient, source: Path, remote_path: str) -> None:
    await sftp.put(
        str(source),
        remote_path,
        follow_symlinks=True,
        sparse=False,
        block_size=BLOCK_SIZE,
        max_requests=BLOCKS_IN_FLIGHT,
    )


async def _copy_directory(sftp: asyncssh.SFTPClient, source: Path, destination: PurePosixPath) -> None:
    """Copy a directory's contents, its empty directories too; a link is copied as the file that it names."""
    for folder, folders, names in os.walk(source):
        folders.sort()
        remote_folder = destination / Path(folder).relative_to(source)
        await _make_directories(sftp, remote_folder)
        for name in sorted(names):
            await _copy_file(sftp, Path(folder, name), str(remote_folder / name))
