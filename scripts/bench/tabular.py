"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def line(cells: Iterable[str]) -> str:
    """One row."""
    return f"| {' | '.join(cells)} |"


def header(head: Sequence[str]) -> list[str]:
    """The row of titles, and what divides it from the rest."""
    return [line(head), f"|{'---|' * len(head)}"]


def grid(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A whole table."""
    return "\n".join([*header(head), *map(line, rows)])
