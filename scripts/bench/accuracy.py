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
    """One line of a table: a recipe with some settings, the arms it is measured by, and what others published."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    arms: tuple[str, ...] = ("admm", "one_shot")
    anchor: str = ""

    def settings(self, seed: int) -> list[str]:
        """The overrides of one seed: `{seed}` in them stands for its number."""
        return [*(text.format(seed=seed) for text in self.overrides), f"dense.seed={seed}"]


ALL = ("admm", "one_shot", "gradual")
ADMM = ("admm",)
ONCE = ("one_shot",)


class Comparison(NamedTuple):
    """Two rows whose accuracies are compared seed by seed.

    Attributes:
        first: name of a row, and its arm.
        second: what is subtracted.
    """

    first: tuple[str, str]
    second: tuple[str, str]


def cifar10(model: str) -> tuple[Row, ...]:
    """The rows of one network: libraries of patterns, connectivity, and all at once."""
    name = "" if model == "small" else f"{model}: "
    own = () if model == "small" else (f"model={model}",)

    def row(text: str, *settings: str, arms: tuple[str, ...] = ADMM, recipe: str = "pattern") -> Row:
        return Row(name + text, f"{recipe}/cifar10.py", (*own, *settings), arms)

    return (
        row("natural patterns (8)", arms=("admm", "one_shot")),
        row("no patterns, trained as long", "library=none", arms=ONCE),
        row("8 random patterns", "library=random", "draw={seed}"),
        row("PCONV's 4 patterns", "library=pconv"),
        row("MEST's 8 patterns", "library=mest"),
        row("any 4 positions", "library=any"),
        row("patterns + connectivity, 8x", "connectivity=0.28", arms=ALL),
        row("patterns x polarized x 4 bits", arms=("admm", "one_shot"), recipe="forms"),
    )


def bsp(rate: int, arms: tuple[str, ...] = ("admm", "one_shot"), anchor: str = "", speaker: str = "") -> Row:
    """A rate of block-based structured pruning; takes of known speakers are held out, or all of one speaker."""
    unheard = (f", {speaker} unheard", (f"speaker={speaker}",)) if speaker else ("", ())
    settings = (f"rate={rate}", *unheard[1])
    return Row(f"block columns and rows, {rate}x{unheard[0]}", "rtmobile/spoken_digit.py", settings, arms, anchor)


TABLES = {
    "digits": (
        Row("patterns + connectivity, 8x", "pattern/digits.py", arms=ALL),
        Row("same, shared by 4 filters", "pattern/digits.py", ("group=4",)),
        Row("same, shared by 8 filters", "pattern/digits.py", ("group=8",)),
        Row("same, shared by 16 filters", "pattern/digits.py", ("group=16",)),
    ),
    "mnist": (
        Row("unstructured, 71x", "patdnn/mnist_unstructured.py", arms=ALL, anchor="99.2% (kaiqzhan/admm-pruning)"),
        Row("patterns + connectivity, 8x", "pattern/mnist.py", arms=ALL),
        Row("unified 4x4, 75% of blocks", "unification/mnist.py"),
        Row("polarized (8) + 4 bits", "forms/mnist.py"),
        Row("patterns x polarized x 4 bits", "forms/mnist_joint.py"),
    ),
    "spoken_digit": (
        bsp(10, arms=ALL, anchor="TIMIT, authors' log: 18.8% phone errors"),
        bsp(29, anchor="19.6%: 0.8 points more than at 10x"),
        bsp(80, anchor="21.5%: 2.7 points more"),
        bsp(103, anchor="23.2%: 4.4 points more"),
        bsp(10, speaker="theo"),
        bsp(29, speaker="theo"),
    ),
    "cifar10": (
        *cifar10("small"),
        Row("same, shared by 4 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=4"), ADMM),
        Row("same, shared by 8 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=8"), ADMM),
        Row("same, shared by 16 filters", "pattern/cifar10.py", ("connectivity=0.28", "group=16"), ADMM),
    ),
    "cifar10_gpu": (
        *cifar10("resnet20"),
        *cifar10("vgg16"),
        Row("vgg16: unified 4x4, 75% of blocks", "unification/cifar10.py", ("model=vgg16",)),
        Row("vgg16: unified 1x16, 75%", "unification/cifar10.py", ("model=vgg16", "block=1,1,16")),
        Row("vgg16: unified 9x4x4, 75%", "unification/cifar10.py", ("model=vgg16", "block=9,4,4")),
        Row("vgg16: 50% unified, 25% pruned", "unification/cifar10.py", ("model=vgg16", "fraction=0.5", "pruned=0.25")),
        Row("mobilenet_v2: patterns + connectivity", "pattern/cifar10.py", ("model=mobilenet_v2", "connectivity=0.5")),
    ),
}


def _comparisons(model: str) -> tuple[Comparison, ...]:
    """Do patterns enhance a network? Against as many more steps without any, and against libraries drawn at random."""
    name = "" if model == "small" else f"{model}: "
    patterns = (f"{name}natural patterns (8)", "admm")
    others = (("no patterns, trained as long", "one_shot"), ("8 random patterns", "admm"), ("any 4 positions", "admm"))
    return tuple(Comparison(patterns, (name + row, arm)) for row, arm in others)


def _sharing(free: str) -> tuple[Comparison, ...]:
    """What it costs that filters share their patterns."""
    return tuple(Comparison((f"same, shared by {group} filters", "admm"), (free, "admm")) for group in (4, 8, 16))


COMPARISONS = {
    "digits": _sharing("patterns + connectivity, 8x"),
    "cifar10": (*_comparisons("small"), *_sharing("patterns + connectivity, 8x")),
    "cifar10_gpu": (*_comparisons("resnet20"), *_comparisons("vgg16")),
}


def cells(table: str, seeds: int) -> list[tuple[Row, str, int]]:
    """The cells of a table, seed by seed, so that a part of it compares all rows."""
    return [(row, arm, seed) for seed in range(seeds) for row in TABLES[table] for arm in row.arms]


def measure(row: Row, arm: str, seed: int, runs: Path) -> dict[str, Any]:
    """One cell: what `compression.run` measured, with versions and time."""
    from modicum.systems import compression, compression_config
    from modicum.train import report

    recipe = compression_config.load_recipe(ROOT / "configs" / row.recipe, row.settings(seed))
    words = [*Path(row.recipe).with_suffix("").parts, *row.settings(seed)[:-1], arm, str(seed)]
    started, processed = time.perf_counter(), time.process_time()
    outcome = compression.run(recipe, arm, runs / "-".join(words))
    versions = report.versions()
    return {
        **outcome.summary,
        "recipe": row.recipe,
        "overrides": row.settings(seed)[:-1],
        "seconds": round(time.perf_counter() - started, 1),
        # what it costs whatever else the machine does
        "cpu_seconds": round(time.process_time() - processed, 1),
        "commit": versions["commit"],
        "jax": versions["jax"],
        "machine": versions["machine"],
    }


def add(path: Path, name: str, cell: dict[str, Any]) -> None:
    """Puts a cell into a table: the file is read anew, since another process may fill the same one."""
    import fcntl

    from modicum.train import report

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cells = {**read(path), name: cell}
        report.write_json(path, {"table": path.stem, "cells": dict(sorted(cells.items()))})


def read(path: Path) -> dict[str, Any]:
    """The cells that are measured."""
    return json.loads(path.read_text())["cells"] if path.exists() else {}


def flags() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Measures the cells of an accuracy table that are still missing.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so many minutes")
    parser.add_argument("--rows", default="", help="only rows whose name holds one of these words (commas between)")
    parser.add_argument("--arms", default="", help="only these arms (commas between)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of accuracy-TABLE.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "accuracy", help="folder of checkpoints")
    return parser.parse_args()


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from modicum.train import Interrupted

    started, path = time.perf_counter(), arguments.results / f"accuracy-{arguments.table}.json"
    for row, arm, seed in cells(arguments.table, arguments.seeds):
        name = f"{row.name} | {arm} | {seed}"
        wanted = not arguments.rows or any(word in row.name for word in arguments.rows.split(","))
        wanted = wanted and (not arguments.arms or arm in arguments.arms.split(",")) and seed >= arguments.first
        if not wanted or name in read(path):
            continue
        if time.perf_counter() - started > 60 * arguments.minutes:
            print("time is up; the same command goes on")
            break
        try:
            cell = measure(row, arm, seed, arguments.runs)
        except Interrupted:
            return 130
        add(path, name, cell)
        print(
            f"{name}: dense {100 * cell['dense_accuracy']:.2f}  hard {100 * cell['hard_accuracy']:.2f}  "
            f"retrained {100 * cell['accuracy']:.2f}  {cell['constrained_weights'] / cell['constrained_kept']:.1f}x "
            f"weights  {cell['dense_bytes'] / cell['packed_bytes']:.1f}x bytes  violation {cell['violation']:g}  "
            f"{cell['seconds']} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
