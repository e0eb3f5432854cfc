"""The cache of artifacts, shared between clones.

An artifact is a folder `<cache>/<name>-<key>`, where the key is a hash of everything that the artifact is
made from. It is built in a scratch folder beside it and appears by one rename: an interrupted build
leaves no artifact, and what is there is whole.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from toolchain.errors import STOP, StoppedError

KEY_LENGTH = 16
MONTH = 30 * 24 * 3600


def root() -> Path:
    """The cache's folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CALICO_LAB_CACHE") or Path(base) / "calico-lab")


def key(*inputs: object) -> str:
    """The key of what is made from these inputs: paths count by their content, the rest by its text."""
    digest = hashlib.sha256()
    for part in inputs:
        for name, content in _contents(part):
            for field in (name, content):
                digest.update(len(field).to_bytes(8, "big") + field)
    return digest.hexdigest()[:KEY_LENGTH]


def _contents(part: object) -> Iterator[tuple[bytes, bytes]]:
    if not isinstance(part, Path):
        yield b"", str(part).encode()
    elif part.is_dir():
        for file in sorted(file for file in part.rglob("*") if file.is_file() and not _generated(file, part)):
            yield file.relative_to(part).as_posix().encode(), file.read_bytes()
    else:
        yield part.name.encode(), part.read_bytes()


def _generated(file: Path, folder: Path) -> bool:
    return any(
        name == "__pycache__" or name.startswith(".") or name.endswith(".egg-info")
        for name in file.relative_to(folder).parts
    )


def path(name: str, artifact_key: str) -> Path:
    """Where the artifact is, or will be."""
    return root() / f"{name}-{artifact_key}"


def find(name: str, artifact_key: str) -> Path | None:
    """The artifact when it is there, noted as used."""
    folder = path(name, artifact_key)
    if not folder.is_dir():
        return None
    os.utime(folder)
    return folder


def artifact(name: str, artifact_key: str, build: Callable[[Path], None]) -> Path:
    """The folder of an artifact, built now when it is not there.

    Args:
        name: What it is called.
        artifact_key: The key of what it is made from.
        build: Fills the folder that it is given; the folder is moved afterwards.
    """
    if found := find(name, artifact_key):
        return found
    final = path(name, artifact_key)
    with lock(name):
        if not final.is_dir():
            _prune(name)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root()))
            try:
                build(scratch)
                scratch.chmod(0o755)
                scratch.rename(final)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return final


def _prune(name: str) -> None:
    """Remove what killed builds of this name have left, and its artifacts unused for a month."""
    for abandoned in root().glob(f".{name}-*"):
        shutil.rmtree(abandoned)
    for old in root().glob(f"{name}-{'[0-9a-f]' * KEY_LENGTH}"):
        if old.stat().st_mtime < time.time() - MONTH:
            shutil.rmtree(old)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Keep other processes from building what has this name, in any clone."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"      {name}: waiting for another run that makes it", flush=True)
            _await_lock(file, name)
        yield


def _await_lock(file: IO[str], name: str) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if STOP.wait(0.2):
                raise StoppedError(f"{name} was not waited for any longer") from None
        else:
            return
