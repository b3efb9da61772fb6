"""What a row of the table of systems is, and how it is judged: figures come from results JSON alone."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabular import interval

Results = Callable[[str], Any]
"""What a file of results holds, by its name without ".json"; empty where there is none."""


def reader(folder: Path) -> Results:
    """Reads each file once.

    Args:
        folder: of the JSON.
    """

    @functools.cache
    def read(name: str) -> Any:
        path = folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    return read


class Figure(NamedTuple):
    """What was measured.

    Attributes:
        text: the figure, as it is shown.
        met: whether the aim is reached; None where there is none.
        made: versions of the measurements: `{"commit": ..., "machine": ...}`.
    """

    text: str
    met: bool | None
    made: Sequence[Mapping[str, Any]]


class Row(NamedTuple):
    """One line: a claim, and what became of it.

    Attributes:
        claim: what the figures are of.
        paper: what was published, and where it stands.
        aim: ours; empty where none was set.
        script: of scripts/bench, that measures it; empty where none can.
        find: the figure; None where it is not measured.
        missed: why the aim is not reached, where it is not: holds as long as the figure stays below the aim.
        absent: what a measurement waits for, shown where there is none.
    """

    claim: str
    paper: str
    aim: str
    script: str
    find: Callable[[Results], Figure | None]
    missed: str = ""
    absent: str = "it is not measured yet"


def outcome(row: Row, found: Figure | None) -> str:
    """Reached; or not reached, and why; or that there is a figure and no aim."""
    if found is None:
        return f"not reached, because {row.absent}"
    if found.met is None:
        return "measured, no aim"
    return "reached" if found.met else f"not reached, because {row.missed}"


def machine_of(made: Mapping[str, Any]) -> str:
    """`2 cores`, or the accelerator's name."""
    machine = made["machine"]
    return f"{machine['cores']} cores" if machine["backend"] == "cpu" else machine["devices"][0]


def cells_of(row: Row, found: Figure | None) -> tuple[str, ...]:
    """Claim, paper, aim, ours, outcome, how measured, commits."""
    shown = found or Figure("", None, ())
    machines = dict.fromkeys(machine_of(made) for made in shown.made)
    commits = dict.fromkeys(str(made["commit"])[:7] for made in shown.made)
    how = ", ".join([*([f"`{row.script}`"] if row.script else []), *machines])
    return (row.claim, row.paper, row.aim, shown.text, outcome(row, found), how, ", ".join(sorted(commits)))


def times(value: float) -> str:
    """A ratio: `290x`, `4.37x`."""
    return f"{value:.0f}x" if value >= 100 else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def paired(cells: Sequence[Mapping[str, Any]], baseline: str = "dense_accuracy") -> str:
    """Difference of accuracies in points by seed, with its interval."""
    return f"{interval([cell['accuracy'] - cell[baseline] for cell in cells])} points, {seeds(len(cells))}"


def seeds(number: int) -> str:
    """`5 seeds`."""
    return f"{number} seed{'s' if number > 1 else ''}"


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
