"""Tables, findings and colours of the verbs' output."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from components.shared.validity import RENEW_DAYS
from diagnosis.facts import HostFacts
from diagnosis.finding import Finding


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Make a table."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def found(findings: Sequence[Finding], warnings: Sequence[Finding], none: str) -> Iterator[Text]:
    """List warnings and findings.

    Args:
        findings: The findings.
        warnings: The warnings.
        none: What to print without findings.
    """
    if not findings:
        yield good(none)
    for style, listed in (("bold yellow", warnings), ("bold red", findings)):
        for finding in listed:
            yield Text.assemble((finding.where, style), ": ", finding.what, "\n    next: ", finding.next)


def days_left(facts: HostFacts) -> Text:
    """When the first of a host's certificates expires."""
    if not facts.certificates:
        return Text()
    days = min(certificate.days for certificate in facts.certificates)
    if days < 0:
        return bad("ended")
    return Text(f"{days} days") if days >= RENEW_DAYS else warning(f"{days} days")


def certificates(facts: HostFacts) -> list[dict[str, Any]]:
    """Return the certificates on a host for programs."""
    return [
        {"file": one.file, "ends": one.ends.isoformat(), "daysLeft": one.days} for one in facts.certificates
    ]


def good(text: str) -> Text:
    """Text in green."""
    return Text(text, style="green")


def warning(text: str) -> Text:
    """Text in yellow."""
    return Text(text, style="yellow")


def bad(text: str) -> Text:
    """Text in red."""
    return Text(text, style="bold red")
