"""Several text files that belong together, placed on a host by one command.

A component's configuration is a handful of small files. One command for all of them is a tenth of the SSH
connections, and one diff in the preview that reads like the files.

Owes: each file is whole or not changed at all; a file that is no longer named is removed; deletion removes
them all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pulumi import Input, Output, ResourceOptions
from pulumi_command import remote

from components.hosts import Host

HEADING = "==> "
_HERE = Path(__file__).parent


def render(files: Mapping[str, str]) -> str:
    """Render files as one text: a line `==> <path>` before the lines of each, in the given order."""
    for path, content in files.items():
        if any(line.startswith(HEADING) for line in content.splitlines()):
            raise ValueError(f"{path}: a line begins with {HEADING!r}, which divides the files")
    return "".join(f"{HEADING}{path}\n{content.rstrip()}\n" for path, content in files.items())


def digest(texts: Sequence[str]) -> str:
    """SHA-256 over texts, as hex digits: tells a service whether what it was started with has changed."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def place_files(
    host: Host,
    name: str,
    files: Mapping[str, Input[str]],
    *,
    mode: str = "0644",
    owner: str = "root:root",
    opts: ResourceOptions | None = None,
) -> remote.Command:
    """Place text files on a host.

    Args:
        host: Where.
        name: The resource is called `<host>-<name>`.
        files: Text by absolute path; it travels by stdin and may be secret.
        mode: Octal mode of each.
        owner: `user:group` of each, by name or number.
        opts: More resource options, usually the parent.
    """
    return host.run(
        name,
        _HERE / "place.sh",
        delete=_HERE / "remove.sh",
        variables={"NAME": name, "MODE": mode, "OWNER": owner},
        stdin=Output.all(**files).apply(render),
        opts=opts,
    )
