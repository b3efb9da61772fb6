"""Markdown table of scripts/bench/results/pipelines.json, which scripts/bench/pipelines.py collected."""

import json
from pathlib import Path

from tabular import header, line


def tables(folder: Path) -> str:
    """A row per stage; empty where nothing is collected."""
    path = folder / "pipelines.json"
    if not path.exists():
        return ""
    cells = json.loads(path.read_text())
    lines = header(["pipeline", "stage", "figures"])
    for name, cell in cells.items():
        for stage in cell["lines"]:
            figures = "; ".join(f"{what} {number(value)}" for what, value in stage["figures"].items())
            lines.append(line([name, stage["stage"], figures]))
    commits = ", ".join(sorted({cell["versions"]["commit"][:7] for cell in cells.values()}))
    return "\n".join([*lines, "", f"Commits {commits}."])


def number(value: float) -> str:
    """Counts whole, the rest to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
