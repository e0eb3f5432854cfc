"""The roster of a class: a CSV file (RFC 4180) with one student's notebook in each line."""

import csv
from collections.abc import Iterator
from pathlib import Path


class RosterError(ValueError):
    """The roster cannot be used; the message names the line and what is accepted."""


def roster_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a roster: the number of each line, and its fields by column.

    Args:
        path: The file, UTF-8, with or without a byte order mark. Its first line names the columns; one is
            `name`. An empty field is left out.

    Raises:
        RosterError: The file cannot be read, has no column `name`, or a line has too many fields.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RosterError(f"cannot be read ({error.strerror}); must be a CSV file") from None
    except UnicodeDecodeError:
        raise RosterError("is not UTF-8; must be a CSV file in UTF-8") from None
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if "name" not in (reader.fieldnames or ()):
        raise RosterError("has no column 'name'; its first line must name the columns")
    for row in reader:
        if None in row:
            raise RosterError(f"line {reader.line_num}: has more fields than the first line has columns")
        yield reader.line_num, {key: value.strip() for key, value in row.items() if value and value.strip()}
