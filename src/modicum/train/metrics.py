"""Metrics as JSON lines, one for each step, that survive a kill and a resume."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def append(path: str | Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines to a file and hands them to the operating system.

    Args:
        path: the file; made where absent.
        lines: dicts of JSON-able values, each with a `step`.
    """
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in lines))


def read(path: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where it is absent. Reading ends at a line that a kill cut short."""
    path = Path(path)
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            found = json.loads(line) if line.endswith("\n") else None
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or "step" not in found:
            break
        lines.append(found)
    return lines


def truncate(path: str | Path, step: int) -> None:
    """Removes the lines past a step, which a resumed run writes again; atomic.

    Args:
        path: the file; made where absent.
        step: the last step that stays.
    """
    path = Path(path)
    kept = [line for line in read(path) if line["step"] <= step]
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.unlink(missing_ok=True)
    append(unfinished, kept)
    os.replace(unfinished, path)


def first_not_finite(lines: Sequence[Mapping[str, Any]]) -> tuple[int, str, float] | None:
    """Step, name and value of the first number that is NaN or infinite, if any."""
    for line in lines:
        for name, value in line.items():
            if not math.isfinite(value):
                return int(line["step"]), name, value
    return None
