"""Formats a checkup as tables or JSON. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from diagnosis.capacity import gib
from diagnosis.finding import Finding
from lab.doctor.checkup import Checkup
from lab.doctor.findings import findings, warnings
from lab.tables import bad, certificates, days_left, found, table


def tables(
    checkup: Checkup, problems: Sequence[Finding], upcoming: Sequence[Finding]
) -> Iterator[RenderableType]:
    """Return the tables, and last the warnings and findings."""
    if checkup.candidates:
        yield table(
            "Hosts",
            ("host", "address", "release", "CPUs", "free memory", "free disk", "lab"),
            (
                (
                    (host, candidate.address, bad("is no host for a lab"), "", "", "", "")
                    if candidate.error
                    else (
                        host,
                        candidate.address,
                        candidate.release,
                        str(candidate.cpus),
                        gib(candidate.memory),
                        gib(candidate.disk),
                        "on it" if candidate.installed else "",
                    )
                )
                for host, candidate in checkup.candidates.items()
            ),
        )
    certified = {host: facts for host, facts in checkup.lab.items() if facts.certificates}
    if certified:
        yield table(
            "Certificates of the lab that is up",
            ("host", "the first ends"),
            ((host, days_left(facts)) for host, facts in certified.items()),
        )
    yield from found(problems, upcoming, "Nothing stands in the way of an `up`.")


def document(checkup: Checkup, up: str) -> dict[str, Any]:
    """Return the checkup for programs; its keys are a contract.

    Args:
        checkup: The checkup.
        up: The command that applies the stack.
    """
    problems = findings(checkup)
    return {
        "fit": not problems,
        "findings": [vars(finding) for finding in problems],
        "warnings": [vars(warning) for warning in warnings(checkup, up)],
        "machines": [
            {
                "name": name,
                "address": candidate.address,
                "release": candidate.release,
                "cpus": candidate.cpus,
                "memoryBytes": candidate.memory,
                "diskBytes": candidate.disk,
                "clockSeconds": candidate.clock_ahead,
                "installed": candidate.installed,
            }
            for name, candidate in checkup.candidates.items()
        ],
        "lab": [{"name": host, "certificates": certificates(facts)} for host, facts in checkup.lab.items()],
    }
