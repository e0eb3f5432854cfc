"""Tables of figures."""

from rich.box import SIMPLE_HEAD
from rich.table import Table


def table(title: str, *columns: str, caption: str | None = None) -> Table:
    """Create a table whose first column is text and whose others are figures."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        caption=caption,
        caption_justify="left",
    )
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made
