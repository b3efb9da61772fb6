"""What the configs of scripts/train.py cost and reach: `python scripts/bench/training.py --seeds 3`.

Trains each config from nothing, seed by seed, and writes scripts/bench/results/training.json; cells that it holds
already are left out. Seconds are wall time of the whole run, data and compilation included, with nothing beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "training.json"


def measure(config: Path, seed: int) -> dict[str, Any]:
    """One config, one seed: the numbers on the held-out split, and what made them."""
    from rich.console import Console

    from modicum import train

    experiment = train.parse_overrides(train.load_config(config), [f"seed={seed}"])
    summary = train.train(experiment, console=Console(stderr=True)).summary
    versions = train.report.versions()
    return {**summary, **{name: versions[name] for name in ("commit", "jax", "machine")}}


def main() -> None:
    """Measures the cells that are missing."""
    parser = argparse.ArgumentParser(description="Trains every config and stores time and score.")
    parser.add_argument("configs", nargs="*", help="names in configs/train; all where none is given")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    from modicum.train import report

    cells = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for config in sorted((ROOT / "configs" / "train").glob("*.py")):
        for seed in range(arguments.seeds):
            name = f"{config.stem} | {seed}"
            if name not in cells and (not arguments.configs or config.stem in arguments.configs):
                cells[name] = measure(config, seed)
                report.write_json(RESULTS, dict(sorted(cells.items())))
                print(f"{name}: {100 * cells[name]['test_accuracy']:.2f}%, {cells[name]['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
