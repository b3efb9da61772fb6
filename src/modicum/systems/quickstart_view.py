"""What the main job shows: one table, one figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from modicum.systems.drawing import draw_kernels, save
from modicum.systems.quickstart import Outcome


def _percent(values: Any) -> str:
    values = 100 * np.asarray(values)
    spread = f" ± {values.std(ddof=1):.2f}" if values.size > 1 else ""
    return f"{values.mean():.2f}%{spread}"


def table(outcome: Outcome, folder: Path) -> Table:
    """The one table a run ends with."""
    summary = outcome.summary
    seeds = f"{summary['seeds']} seed{'s' if summary['seeds'] > 1 else ''}"
    shown = Table(title=f"{summary['data']}: {summary['test_images']:,} held-out images, {seeds}", show_lines=False)
    shown.add_column("what")
    shown.add_column("measured", justify="right")
    steps = f"{summary['compression_steps']:,} steps"
    rows = [
        ("accuracy, dense", _percent(summary["dense"])),
        ("accuracy, projected, not retrained", _percent(summary["projected"])),
        (f"accuracy, one-shot ({steps})", _percent(summary["one_shot"])),
        (f"accuracy, ADMM ({steps})", _percent(summary["admm"])),
        (
            f"on {len(summary['chips'])} chips, median",
            _percent(summary["chip_median"]),
        ),
        (f"on {len(summary['chips'])} chips, worst", _percent(summary["chip_worst"])),
        ("on an ideal chip", _percent(summary["ideal_chip"])),
        ("weights kept", f"{summary['weights_kept']:,} of {summary['weights']:,}"),
        ("bytes, packed of dense", f"{summary['packed_bytes']:,} of {summary['dense_bytes']:,}"),
        ("violation of the sets", f"{summary['violation']:g}"),
        ("decode(encode(w)) bit-exact", "yes" if summary["round_trip"] else "NO"),
    ]
    for engine, error in summary["export"].items():
        rows.append((f"export verified by {engine}, difference", f"{error:.1e}"))
    if "iree" not in summary["export"]:
        rows.append(("export verified by iree", "no: extra iree not installed"))
    rows.append(("energy per image on chip", f"{1e6 * summary['energy_joules_per_image']:.2f} uJ"))
    for name, value in rows:
        shown.add_row(name, value)
    shown.caption = f"chips: {summary['chip_images']:,} images each. results.json, figure.png, bundle/: {folder}"
    return shown


def figure(outcome: Outcome, path: Path) -> None:
    """Accuracy across chips, and kernels before and after with their patterns; a PNG that is whole or not there."""
    drawing = Figure(figsize=(11, 4.6), layout="constrained", dpi=120)
    left, middle, right = drawing.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _draw_chips(left, outcome)
    layer = "Conv_1"
    before = np.asarray(outcome.seeds[0].dense["params"][layer]["kernel"])
    after = np.asarray(outcome.seeds[0].arms["admm"].result.params["params"][layer]["kernel"])
    draw_kernels(middle, before, f"{layer}: dense kernels")
    draw_kernels(right, after, f"{layer}: patterns x signs x {outcome.config.bits} bits")
    save(drawing, path)


def _draw_chips(axes: Any, outcome: Outcome) -> None:
    summary = outcome.summary
    accuracy = 100 * np.asarray(summary["chips"])
    step = 100 / summary["chip_images"]
    edges = np.arange(accuracy.min() - step / 2, accuracy.max() + step, step)
    counts, _, _ = axes.hist(accuracy, bins=edges, color="#4c72b0", edgecolor="white")
    axes.set_ylim(top=1.35 * counts.max())  # room for the legend
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    lines = (
        ("dense, digital", 100 * summary["dense"][0], "#222222", "-"),
        ("compressed, digital", 100 * summary["admm"][0], "#c44e52", "--"),
        ("median chip", 100 * summary["chip_median"], "#dd8452", ":"),
    )
    for name, value, color, style in lines:
        axes.axvline(value, color=color, linestyle=style, label=f"{name}: {value:.1f}%")
    axes.set(
        xlabel=f"held-out accuracy (%), {summary['chip_images']:,} images",
        ylabel="chips",
        title=f"{accuracy.size} chips, log-normal variation {outcome.config.sigma:g}",
    )
    axes.legend(fontsize=8, loc="upper left")
