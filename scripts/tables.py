"""The results table of the README, from the results that runs wrote; no figure is typed by hand.

python scripts/tables.py                          prints the table of scripts/bench/results/*.json
python scripts/tables.py --collect RUN_FOLDER     takes the results of a finished quickstart run in
python scripts/tables.py --write                  puts the table into README.md
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "bench" / "results"
START, END = "<!-- results: scripts/tables.py -->", "<!-- end of results -->"


def percent(values: float | list[float]) -> str:
    """One accuracy, or mean and standard deviation of several."""
    values = values if isinstance(values, list) else [values]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{100 * mean:.2f}%"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}%"


def row(entry: dict) -> str:
    """One line of the table."""
    result, made = entry["results"], entry["versions"]
    cells = (
        f"{result['data']}, {result['test_images']:,} held out, {result['seeds']} seed(s)",
        percent(result["dense"]),
        percent(result["one_shot"]),
        percent(result["admm"]),
        f"{percent(result['chip_median'])} / {percent(result['chip_worst'])}",
        f"{result['weights_kept']:,} of {result['weights']:,}",
        f"{result['dense_bytes']:,} → {result['packed_bytes']:,}",
        f"{result['violation']:g}",
        f"jax {made['jax']}, {made['machine']['cores']} cores, {made['commit'][:7]}",
    )
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole table in Markdown."""
    head = (
        "data",
        "dense",
        "one-shot + retraining, equal steps",
        "ADMM + retraining",
        "simulated chips: median / worst",
        "weights kept",
        "bytes",
        "violation",
        "measured with",
    )
    entries = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("quickstart-*.json"))]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *map(row, entries)]
    return "\n".join(lines)


def written(readme: str) -> str:
    """The README with the table between its marks renewed."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def collect(run: Path) -> Path:
    """Copies results, versions and figure of a finished run into the repository."""
    results = json.loads((run / "results.json").read_text())
    entry = {"results": results, "versions": json.loads((run / "versions.json").read_text())}
    target = RESULTS / f"quickstart-{results['data']}.json"
    target.write_text(json.dumps(entry, indent=1) + "\n")
    shutil.copyfile(run / "figure.png", target.with_suffix(".png"))
    return target


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="The results table, from the results that runs wrote.")
    parser.add_argument("--collect", metavar="RUN_FOLDER", type=Path, help="take in the results of a finished run")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    try:
        if arguments.collect:
            print(collect(arguments.collect))
    except OSError as error:
        print(
            f"tables.py: run folder must hold results.json, versions.json and figure.png, got {error}", file=sys.stderr
        )
        return 2
    if arguments.write:
        readme = ROOT / "README.md"
        readme.write_text(written(readme.read_text()))
    else:
        print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
