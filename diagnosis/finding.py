"""Finding: something wrong in a lab."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong: on which host, what it is, and what to do next."""

    where: str
    what: str
    next: str

    def lines(self) -> Iterator[str]:
        """The finding as text."""
        yield f"{self.where}: {self.what}"
        yield f"    next: {self.next}"
