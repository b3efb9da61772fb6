"""The accuracy tables, cell by cell: `python scripts/bench/accuracy.py mnist --seeds 5 --minutes 9`.

A cell is one recipe, one arm, one seed. Cells that scripts/bench/results/accuracy-TABLE.json holds already are left
out, so that a table is made in pieces, by whoever has a machine for some minutes: no cell is started after `--minutes`,
and an interrupted cell goes on from its last checkpoint in runs/accuracy. `--rows` and `--arms` pick cells.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"


class Row(NamedTuple):
    """One line of a table: a recipe with some settings, and the arms it is measured by."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    arms: tuple[str, ...] = ("admm", "one_shot")


ALL = ("admm", "one_shot", "gradual")
ADMM = ("admm",)
TABLES = {
    "digits": (Row("patterns + connectivity, 8x", "pattern/digits.py", arms=ALL),),
    "mnist": (
        Row("unstructured, 71x", "patdnn/mnist_unstructured.py", arms=ALL),
        Row("patterns + connectivity, 8x", "pattern/mnist.py", arms=ALL),
        Row("unified 4x4, 75% of blocks", "unification/mnist.py"),
        Row("polarized (8) + 4 bits", "forms/mnist.py"),
        Row("patterns x polarized x 4 bits", "forms/mnist_joint.py"),
    ),
    "spoken_digit": (
        Row("block columns and rows, 10x", "rtmobile/spoken_digit.py", ("rate=10",), ALL),
        Row("block columns and rows, 29x", "rtmobile/spoken_digit.py", ("rate=29",)),
        Row("block columns and rows, 80x", "rtmobile/spoken_digit.py", ("rate=80",)),
        Row("block columns and rows, 103x", "rtmobile/spoken_digit.py", ("rate=103",)),
    ),
    "cifar10": (
        Row("natural patterns (8)", "pattern/cifar10.py"),
        Row("8 random patterns", "pattern/cifar10.py", ("library=random",), ADMM),
        Row("PCONV's 4 patterns", "pattern/cifar10.py", ("library=pconv",), ADMM),
        Row("MEST's 8 patterns", "pattern/cifar10.py", ("library=mest",), ADMM),
        Row("any 4 positions", "pattern/cifar10.py", ("library=any",), ADMM),
        Row("patterns + connectivity, 8x", "pattern/cifar10.py", ("connectivity=0.28",), ALL),
        Row("same, shared by 4 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=4"), ADMM),
        Row("same, shared by 8 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=8"), ADMM),
        Row("same, shared by 16 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=16"), ADMM),
        Row("patterns x polarized x 4 bits", "forms/cifar10.py"),
    ),
}


def cells(table: str, seeds: int) -> list[tuple[Row, str, int]]:
    """The cells of a table, seed by seed, so that a part of it compares all rows."""
    return [(row, arm, seed) for seed in range(seeds) for row in TABLES[table] for arm in row.arms]


def measure(row: Row, arm: str, seed: int) -> dict[str, Any]:
    """One cell: what `compression.run` measured, with versions and time."""
    from modicum.systems import compression, compression_config
    from modicum.train import report

    recipe = compression_config.load_recipe(ROOT / "configs" / row.recipe, [*row.overrides, f"dense.seed={seed}"])
    words = [*Path(row.recipe).with_suffix("").parts, *row.overrides, arm, str(seed)]
    folder = ROOT / "runs" / "accuracy" / "-".join(words)
    started = time.perf_counter()
    outcome = compression.run(recipe, arm, folder)
    versions = report.versions()
    return {
        **outcome.summary,
        "recipe": row.recipe,
        "overrides": list(row.overrides),
        "seconds": round(time.perf_counter() - started, 1),
        "commit": versions["commit"],
        "jax": versions["jax"],
        "machine": versions["machine"],
    }


def add(table: str, name: str, cell: dict[str, Any]) -> None:
    """Puts a cell into the results: the file is read anew, since another process may fill the same table."""
    import fcntl

    from modicum.train import report

    path = RESULTS / f"accuracy-{table}.json"
    with open(RESULTS / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read(table)
        found[name] = cell
        report.write_json(path, {"table": table, "cells": dict(sorted(found.items()))})


def read(table: str) -> dict[str, Any]:
    """The cells that are measured."""
    path = RESULTS / f"accuracy-{table}.json"
    return json.loads(path.read_text())["cells"] if path.exists() else {}


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measures the cells of an accuracy table that are still missing.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so many minutes")
    parser.add_argument("--rows", default="", help="only rows whose name holds one of these words (commas between)")
    parser.add_argument("--arms", default="", help="only these arms")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    started = time.perf_counter()
    for row, arm, seed in cells(arguments.table, arguments.seeds):
        name = f"{row.name} | {arm} | {seed}"
        wanted = not arguments.rows or any(word in row.name for word in arguments.rows.split(","))
        wanted = wanted and (not arguments.arms or arm in arguments.arms.split(",")) and seed >= arguments.first
        if not wanted or name in read(arguments.table):
            continue
        if time.perf_counter() - started > 60 * arguments.minutes:
            print("time is up; the same command goes on")
            break
        cell = measure(row, arm, seed)
        add(arguments.table, name, cell)
        print(
            f"{name}: dense {100 * cell['dense_accuracy']:.2f}  hard {100 * cell['hard_accuracy']:.2f}  "
            f"retrained {100 * cell['accuracy']:.2f}  {cell['weights'] / cell['kept']:.1f}x weights  "
            f"{cell['dense_bytes'] / cell['packed_bytes']:.1f}x bytes  violation {cell['violation']:g}  "
            f"{cell['seconds']} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
