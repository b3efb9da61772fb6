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


def percent(values: float | list[float]) -> str:
    """One accuracy, or mean and standard deviation of several."""
    values = values if isinstance(values, list) else [values]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{100 * mean:.2f}%"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}%"


def interval(differences: list[float]) -> str:
    """Mean of paired differences in points, and half the width of its 95% confidence interval (Student's t)."""
    from scipy import stats

    size = len(differences)
    mean = 100 * sum(differences) / size
    if size == 1:
        return f"{mean:+.2f}"
    variance = sum((100 * value - mean) ** 2 for value in differences) / (size - 1)
    return f"{mean:+.2f} ± {stats.t.ppf(0.975, size - 1) * (variance / size) ** 0.5:.2f}"
