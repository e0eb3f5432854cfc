"""The cache of artifacts, shared between clones.

An artifact is a folder `<cache>/<name>-<key>`, where the key is a hash of all inputs. It is built in a
scratch folder and then renamed, so that an interrupted build leaves no artifact.
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
    """The key of these inputs: a path counts by its content, any other object by its text."""
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
    """Where the artifact is, or will be once it is built."""
    return root() / f"{name}-{artifact_key}"


def find(name: str, artifact_key: str) -> Path | None:
    """Return the artifact if it exists, and record its use."""
    folder = path(name, artifact_key)
    if not folder.is_dir():
        return None
    os.utime(folder)
    return folder


def artifact(name: str, artifact_key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of an artifact; build it if it does not exist.

    Args:
        name: Its name, without the key.
        artifact_key: The key of its inputs.
        build: Fills the folder that it is given, which is renamed afterwards.
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
    """Remove scratch folders of killed builds of this name, and its artifacts unused for a month."""
    for abandoned in root().glob(f".{name}-*"):
        shutil.rmtree(abandoned)
    for old in root().glob(f"{name}-{'[0-9a-f]' * KEY_LENGTH}"):
        if old.stat().st_mtime < time.time() - MONTH:
            shutil.rmtree(old)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Lock the artifacts of this name against other processes, of any clone."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"      {name}: waiting for another run that builds it", flush=True)
            _await_lock(file, name)
        yield


def _await_lock(file: IO[str], name: str) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if STOP.wait(0.2):
                raise StoppedError(f"stopped waiting for {name}") from None
        else:
            return
