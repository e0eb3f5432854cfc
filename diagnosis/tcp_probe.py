"""Asks a host which TCP ports answer to it, without opening a connection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.hosts.remote import Answer

PROBE_SCRIPT = Path(__file__).with_name("scripts") / "probe-tcp.sh"


@dataclass(frozen=True)
class Probe:
    """The reply of one target (`<address>:<port>`)."""

    reply: str
    """`open`, `refused`, `rejected`, `unreachable` or `silent` (see `probe-tcp.sh`)."""
    target: str
    source: str
    """The address that the probing host sends from; `-` if it has no route."""


def probe_variables(
    targets: Sequence[str], seconds: float, *, until: Literal["open", "answered"]
) -> dict[str, str]:
    """Return the variables of `probe-tcp.sh`.

    Args:
        targets: `<IPv4 address>:<port>` each.
        seconds: How long to wait at most.
        until: When to stop earlier: when all targets are open, or when all have answered.
    """
    return {"TARGETS": " ".join(targets), "QUARTERS": str(max(1, round(seconds * 4))), "UNTIL": until}


def parse_probes(answer: Answer) -> list[Probe]:
    """Parse the output of `probe-tcp.sh`; empty if it failed."""
    return [Probe(*line.split()) for line in answer.text.splitlines()] if not answer.status else []
