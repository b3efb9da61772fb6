"""Takes finished runs of scripts/federate.py into the results: python scripts/bench/federated.py RUN_FOLDER...

Writes scripts/bench/results/federated.json (a cell for each run, named after its folder) and the learning curve of each
as federated-NAME.png beside it.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from modicum import train

RESULTS = Path(__file__).parent / "results" / "federated.json"


def collect(folder: Path) -> dict:
    """What a run folder says."""
    result, versions = (json.loads((folder / f"{name}.json").read_text()) for name in ("result", "versions"))
    config = json.loads((folder / "config.json").read_text())
    lines = train.metrics.read(folder / "metrics.jsonl")
    curve = [
        {name: value for name, value in line.items() if name == "step" or name.startswith("test_")}
        for line in lines
        if "test_loss" in line
    ]
    return {"result": result, "config": config, "curve": curve, "versions": versions}


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN_FOLDER", nargs="+", type=Path, help="folders of finished runs")
    cells = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for folder in parser.parse_args().runs:
        if not (folder / "result.json").is_file():
            print(f"federated.py: run folder must hold a finished run, got {folder}", file=sys.stderr)
            return 2
        cells[folder.name] = collect(folder)
        shutil.copyfile(folder / "figure.png", RESULTS.with_name(f"federated-{folder.name}.png"))
    train.report.write_json(RESULTS, dict(sorted(cells.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
