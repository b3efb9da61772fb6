"""Takes finished runs of scripts/federate.py into the results: python scripts/bench/federated.py RUN_FOLDER...

Writes scripts/bench/results/federated.json (a cell for each run, named after its folder) and the learning curve of each
as federated-NAME.png beside it.
"""

import shutil
import sys
from pathlib import Path

import collecting

from modicum import train

RESULTS = Path(__file__).parent / "results" / "federated.json"


def collect(folder: Path) -> dict:
    """What a run folder says; its learning curve is copied."""
    result, versions, config = collecting.read(folder, "result", "versions", "config")
    lines = train.metrics.read(folder / "metrics.jsonl")
    curve = [
        {name: value for name, value in line.items() if name == "step" or name.startswith("test_")}
        for line in lines
        if "test_loss" in line
    ]
    shutil.copyfile(folder / "figure.png", RESULTS.with_name(f"federated-{folder.name}.png"))
    return {"result": result, "config": config, "curve": curve, "versions": versions}


if __name__ == "__main__":
    sys.exit(collecting.main("federated.py", str(__doc__).splitlines()[0], RESULTS, collect))
