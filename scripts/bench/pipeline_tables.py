"""Markdown table of scripts/bench/results/pipelines.json, which scripts/bench/pipelines.py collected."""

import json
from pathlib import Path

from tabular import header, line


def tables(folder: Path) -> str:
    """A row per stage; empty where nothing is collected."""
    path = folder / "pipelines.json"
    if not path.exists():
        return ""
    from modicum.systems import pipelines

    cells = json.loads(path.read_text())
    lines = header(["pipeline", "stage", "figures"])
    for name, cell in cells.items():
        for stage in cell["lines"]:
            lines.append(line([name, stage["stage"], pipelines.in_words(stage["figures"])]))
    commits = ", ".join(sorted({cell["versions"]["commit"][:7] for cell in cells.values()}))
    return "\n".join([*lines, "", f"Commits {commits}."])
