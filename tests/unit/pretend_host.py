"""A host that only pretends: a component's script runs as it is sent, but touches a folder of its own.

The lab's folders in the script are moved below a temporary one, and the programs by which a script changes a
machine are replaced: each records how it was called and does what the test tells it to.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from components.hosts.remote import with_variables

FOLDERS = re.compile(
    r"/(?:etc/calico-lab|opt/calico-lab|var/lib/calico|usr/lib/calico|usr/local/bin|run/calico|run/bird|run/docker/plugins|sys/fs/bpf)"
)
PROGRAMS = [
    *(
        "systemctl",
        "journalctl",
        "sysctl",
        "ip",
        "tc",
        "mountpoint",
        "umount",
        "ipset",
        "birdc",
        "etcdctl",
        "chown",
    ),
    *("iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"),
]


class PretendHost:
    """Runs scripts below `root` with recorded programs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._programs = root / "programs"
        self._programs.mkdir()
        self._record = root / "calls"
        self._record.touch()
        for name in PROGRAMS:
            self.program(name)

    def program(self, name: str, body: str = "") -> None:
        """Replace a program; the body is bash, in which `$*` is how it was called."""
        path = self._programs / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self._record}"\n{body}\n')
        path.chmod(0o755)

    def path(self, path: str) -> Path:
        """Where an absolute path of the host lies here."""
        return self.root / path.removeprefix("/")

    def write(self, path: str, text: str) -> None:
        """Put a file on the host."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(
        self,
        script: Path,
        variables: Mapping[str, str],
        stdin: str = "",
        *,
        instead: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with its variables, as a host does; `instead` replaces text in it."""
        text = FOLDERS.sub(lambda found: f"{self.root}{found[0]}", script.read_text())
        for old, new in (instead or {}).items():
            assert old in text
            text = text.replace(old, new)
        return subprocess.run(
            ["bash", "-c", with_variables(text, variables)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": f"{self._programs}:/usr/bin:/bin"},
        )

    @property
    def calls(self) -> list[str]:
        """How the replaced programs were called so far, in order."""
        return self._record.read_text().splitlines()
