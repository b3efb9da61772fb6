"""Takes finished runs of `modicum pipeline` into the results: python scripts/bench/pipelines.py RUN_FOLDER...

Writes scripts/bench/results/pipelines.json (a cell for each run, named after its folder), and pictures that a pipeline
drew as pipelines-NAME.png beside it.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from modicum import train

RESULTS = Path(__file__).parent / "results" / "pipelines.json"


def collect(folder: Path) -> dict:
    """What a run folder says."""
    names = ("result", "config", "versions")
    lines, config, versions = (json.loads((folder / f"{name}.json").read_text()) for name in names)
    return {"lines": lines, "config": config, "versions": versions}


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN_FOLDER", nargs="+", type=Path, help="folders of finished runs")
    cells = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for folder in parser.parse_args().runs:
        if not (folder / "result.json").is_file():
            print(f"pipelines.py: run folder must hold a finished run, got {folder}", file=sys.stderr)
            return 2
        cells[folder.name] = collect(folder)
        for picture in folder.glob("*.png"):
            shutil.copyfile(picture, RESULTS.with_name(f"pipelines-{folder.name}.png"))
    train.report.write_json(RESULTS, dict(sorted(cells.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
