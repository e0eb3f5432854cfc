"""Text files as one text, in the format that `place-files.sh` and `prepare.sh` read."""

import hashlib
from collections.abc import Mapping, Sequence

HEADING = "==> "


def render(files: Mapping[str, str]) -> str:
    """Render files as one text: a line `==> <path>`, then the lines of the file, in the given order.

    Raises:
        ValueError: A line of a file begins like such a heading.
    """
    for path, content in files.items():
        if any(line.startswith(HEADING) for line in content.splitlines()):
            raise ValueError(f"{path}: a line begins with {HEADING!r}, which divides the files")
    return "".join(f"{HEADING}{path}\n{content.rstrip()}\n" for path, content in files.items())


def digest(texts: Sequence[str]) -> str:
    """SHA-256 over texts, as hex digits: a service is restarted when that of its configuration changes."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
