"""Pictures of the README that belong to no single bench, from results JSON: `python scripts/bench/pictures.py`.

Writes accuracy.png (compressed networks: `accuracy-*.json`, of scripts/bench/accuracy.py), chips.png (simulated
chips: `quickstart-*.json`) and call.png (the last picture of `notebooks/conference.ipynb`, as it was run) beside the
JSON. The same results give the same bytes.
"""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from modicum import command
from modicum.systems import drawing

RESULTS = Path(__file__).parent / "results"
PAGES = Path(__file__).parents[2] / "notebooks"
ARMS = {"admm": ("ADMM", "tab:blue", "o"), "one_shot": ("one-shot", "tab:orange", "s")}


def rows_of(cells: dict[str, dict]) -> list[dict[str, Any]]:
    """Sets of an accuracy table that both arms were run on: times fewer bytes, and means over seeds in %."""
    grouped: dict[str, dict[str, list[dict]]] = {}
    for name, cell in cells.items():
        grouped.setdefault(name.split(" | ")[0], {}).setdefault(cell["arm"], []).append(cell)
    rows = []
    for name, arms in grouped.items():
        if not set(ARMS) <= set(arms):
            continue
        mine = arms["admm"]
        row: dict[str, Any] = {
            "name": name,
            "ratio": np.mean([cell["dense_bytes"] / cell["packed_bytes"] for cell in mine]),
            "dense": 100 * np.mean([cell["dense_accuracy"] for cell in mine]),
        }
        for arm in ARMS:
            for key in ("accuracy", "hard_accuracy"):
                row[f"{arm} {key}"] = 100 * np.mean([cell[key] for cell in arms[arm]])
        rows.append(row)
    return sorted(rows, key=lambda row: row["ratio"])


def draw_accuracy(names: tuple[str, ...], path: Path) -> None:
    """Held-out errors of each set, the least compressed first: hollow after the projection, filled after retraining."""
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=90)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        cells = json.loads((RESULTS / f"accuracy-{name}.json").read_text())["cells"]
        rows, first = rows_of(cells), next(iter(cells.values()))
        for side, (arm, (label, color, marker)) in zip((-0.12, 0.12), ARMS.items(), strict=True):
            places = np.arange(len(rows)) + side
            hard, soft = ([100 - row[f"{arm} {key}"] for row in rows] for key in ("hard_accuracy", "accuracy"))
            axes.vlines(places, soft, hard, color=color, linewidth=0.8)
            style = {"linestyle": "", "marker": marker, "color": color}
            axes.plot(places, hard, fillstyle="none", label=f"{label}, projected", **style)
            axes.plot(places, soft, label=f"{label}, retrained", **style)
        for place, row in enumerate(rows):
            ends = place - 0.35, place + 0.35
            axes.plot(ends, [100 - row["dense"]] * 2, color="gray", label="dense" if not place else None)
        axes.set(yscale="log", xlabel="times fewer bytes", title=f"{first['data']}, {first['model']}")
        axes.set_xticks(range(len(rows)), [f"{row['ratio']:.1f}" for row in rows])
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, axis="y")
    figure.axes[0].set_ylabel("held out, % wrong")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    drawing.save(figure, path)


def draw_chips(names: tuple[str, ...], path: Path) -> None:
    """How many simulated chips of a compressed network reach which held-out accuracy."""
    figure = Figure(figsize=(9, 3), layout="constrained", dpi=90)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        result = json.loads((RESULTS / f"quickstart-{name}.json").read_text())["results"]
        chips = 100 * np.asarray(result["chips"])
        # one bar for each number of images that may be right
        step = 100 / result["chip_images"]
        axes.hist(
            chips, np.arange(chips.min() - step / 2, chips.max() + step, step), color="#4c72b0", edgecolor="white"
        )
        axes.axvline(100 * result["ideal_chip"], color="black", label="a chip without noise")
        axes.axvline(100 * result["dense"][0], color="gray", linestyle=":", label="dense, digital, all held out")
        axes.set(
            xlabel=f"right of {result['chip_images']} held-out images, %",
            ylabel="chips",
            title=f"{name}: {len(chips)} chips",
        )
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
        axes.legend(fontsize=8)
    drawing.save(figure, path)


def last_picture(page: Path) -> bytes:
    """The PNG that a rendered notebook shows last."""
    outputs = [output for cell in json.loads(page.read_text())["cells"] for output in cell.get("outputs", ())]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", ())]
    if not pictures:
        raise ValueError(f"page must show a picture, got {page}: run scripts/notebooks.py")
    return base64.b64decode(pictures[-1])


def main() -> int:
    """Runs the command; returns the exit code."""
    argparse.ArgumentParser(description="Draws pictures of the README from results.").parse_args()

    def work() -> None:
        draw_accuracy(("mnist", "spoken_digit", "cifar10"), RESULTS / "accuracy.png")
        draw_chips(("digits", "mnist"), RESULTS / "chips.png")
        (RESULTS / "call.png").write_bytes(last_picture(PAGES / "conference.ipynb"))

    return command.exit_code(work, "is not saved")


if __name__ == "__main__":
    sys.exit(main())
