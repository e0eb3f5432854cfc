"""Downloads: whether they can be had is decided in seconds; what is fetched here is pinned and verified."""
# ruff: noqa: S310 (the URLs are those of downloads.json, all https)

import contextlib
import hashlib
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from toolchain.errors import ToolchainError

PATIENCE = 3.0
"""Seconds that a host has to answer."""
_answers: dict[str, bool] = {}
"""Whether a file can be had, by its URL."""


@dataclass(frozen=True)
class Download:
    """A file of `downloads.json`, for this machine's architecture."""

    version: str
    url: str
    sha256: str | None
    """Absent where no checksum is pinned: then it is Pulumi that fetches the file, or nobody."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The download of this name."""
        entry = json.loads((Path(__file__).parent / "downloads.json").read_text())[name]
        architecture = entry["architecture"].get(os.uname().machine, "")
        url = entry["url"].format(architecture=architecture)
        return cls(entry["version"], url, entry.get("sha256", {}).get(architecture))

    @property
    def host(self) -> str:
        """Where it comes from."""
        return urlsplit(self.url).hostname or self.url

    def answers(self) -> bool:
        """Whether the file can be had, found out in `PATIENCE` seconds, once in a run."""
        if self.url not in _answers:
            _answers[self.url] = self._ask()
        return _answers[self.url]

    def _ask(self) -> bool:
        found = threading.Event()

        def ask() -> None:
            request = Request(self.url, method="HEAD")
            with contextlib.suppress(OSError), urlopen(request, timeout=PATIENCE):
                found.set()

        # In a thread, because the time that a name takes to resolve has no limit of its own.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        return found.is_set()

    def fetch(self, file: Path) -> None:
        """Download it.

        Raises:
            ToolchainError: It does not come, or is not the pinned file.
        """
        try:
            with urlopen(self.url, timeout=60) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        except OSError as error:
            raise ToolchainError(f"{self.url}: {error}; run `make setup` again") from error
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.sha256:
            raise ToolchainError(
                f"{self.url} is not the pinned file: its SHA-256 is {found} and should be {self.sha256}. "
                "It has been left out; find out what stands between this machine and that host."
            )
