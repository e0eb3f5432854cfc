"""Several text files that belong together as one text, as `place-files.sh` reads it."""

import hashlib
from collections.abc import Mapping, Sequence

HEADING = "==> "


def render(files: Mapping[str, str]) -> str:
    """Render files as one text: a line `==> <path>` before the lines of each, in the given order."""
    for path, content in files.items():
        if any(line.startswith(HEADING) for line in content.splitlines()):
            raise ValueError(f"{path}: a line begins with {HEADING!r}, which divides the files")
    return "".join(f"{HEADING}{path}\n{content.rstrip()}\n" for path, content in files.items())


def digest(texts: Sequence[str]) -> str:
    """SHA-256 over texts, as hex digits: tells a service whether what it was started with has changed."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
