"""Downloads pinned files and verifies them; finds out within seconds whether a file is available."""
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
"""Seconds within which a host has to answer."""
_answers: dict[str, bool] = {}
"""Whether a file is available, by its URL."""


@dataclass(frozen=True)
class Download:
    """A file of `downloads.json`, for this computer's architecture."""

    version: str
    url: str
    sha256: str | None
    """None where no checksum is pinned: then only Pulumi itself may download the file."""

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the download of this name."""
        entry = json.loads((Path(__file__).parent / "downloads.json").read_text())[name]
        architecture = entry["architecture"].get(os.uname().machine, "")
        url = entry["url"].format(architecture=architecture)
        return cls(entry["version"], url, entry.get("sha256", {}).get(architecture))

    @property
    def host(self) -> str:
        """The host name in its URL."""
        return urlsplit(self.url).hostname or self.url

    def answers(self) -> bool:
        """Whether the file is available; asked once in a run, for at most `PATIENCE` seconds."""
        if self.url not in _answers:
            _answers[self.url] = self._ask()
        return _answers[self.url]

    def _ask(self) -> bool:
        found = threading.Event()

        def ask() -> None:
            request = Request(self.url, method="HEAD")
            with contextlib.suppress(OSError), urlopen(request, timeout=PATIENCE):
                found.set()

        # In a thread, because name resolution has no timeout.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        return found.is_set()

    def fetch(self, file: Path) -> None:
        """Download the file.

        Raises:
            ToolchainError: The download fails, or its checksum is not the pinned one.
        """
        try:
            with urlopen(self.url, timeout=60) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        except OSError as error:
            raise ToolchainError(f"{self.url}: {error}; next: run `make setup` again") from error
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.sha256:
            raise ToolchainError(
                f"{self.url} is not the pinned file: its SHA-256 is {found} instead of {self.sha256}, so it "
                "is not used; next: check the proxies between this computer and that host"
            )
