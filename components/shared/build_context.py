"""The digest of a build context: the folder of a Dockerfile."""

import hashlib
import stat
from pathlib import Path


def context_digest(folder: Path) -> str:
    """SHA-256 over everything in a build context that can change the image, as hex digits.

    It covers the name, type and mode of every file and folder, the contents of files and the targets of
    symbolic links: all that Docker would copy.

    Raises:
        ValueError: The folder has no Dockerfile, or has a file that cannot be sent to Docker.
    """
    if not (folder / "Dockerfile").is_file():
        raise ValueError(f"{folder} is no build context: it has no Dockerfile")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(mode):
            content = str(path.readlink()).encode()
        elif stat.S_ISDIR(mode):
            content = b""
        else:
            raise ValueError(
                f"{path} is neither a file nor a folder nor a link; take it out of the build context"
            )
        digest.update(f"{path.relative_to(folder)}\0{mode:o}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
