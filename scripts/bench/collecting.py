"""Finished run folders taken into a results JSON: what the collecting scripts share."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modicum import train


def read(folder: Path, *names: str) -> list[Any]:
    """What JSON files of a run folder hold."""
    return [json.loads((folder / f"{name}.json").read_text()) for name in names]


def main(script: str, text: str, results: Path, collect: Callable[[Path], dict[str, Any]]) -> int:
    """Adds a cell for each run folder of the command line, named after it; returns the exit code.

    Args:
        script: its name, for messages.
        text: what it does.
        results: the JSON.
        collect: the cell of a folder; copies pictures, if there are any.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("runs", metavar="RUN_FOLDER", nargs="+", type=Path, help="folders of finished runs")
    cells = json.loads(results.read_text()) if results.is_file() else {}
    for folder in parser.parse_args().runs:
        if not (folder / "result.json").is_file():
            print(f"{script}: run folder must hold a finished run, got {folder}", file=sys.stderr)
            return 2
        cells[folder.name] = collect(folder)
    train.report.write_json(results, dict(sorted(cells.items())))
    return 0
