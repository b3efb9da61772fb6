"""Takes finished runs of `modicum pipeline` into the results: python scripts/bench/pipelines.py RUN_FOLDER...

Writes scripts/bench/results/pipelines.json (a cell for each run, named after its folder), and pictures that a pipeline
drew as pipelines-NAME.png beside it.
"""

import shutil
import sys
from pathlib import Path

import collecting

RESULTS = Path(__file__).parent / "results" / "pipelines.json"


def collect(folder: Path) -> dict:
    """What a run folder says; pictures are copied."""
    lines, config, versions = collecting.read(folder, "result", "config", "versions")
    for picture in folder.glob("*.png"):
        shutil.copyfile(picture, RESULTS.with_name(f"pipelines-{folder.name}.png"))
    return {"lines": lines, "config": config, "versions": versions}


if __name__ == "__main__":
    sys.exit(collecting.main("pipelines.py", str(__doc__).splitlines()[0], RESULTS, collect))
