"""What a compression run shows: a table per layer, and a picture of what the sets chose."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from modicum.core import leaves_by_path
from modicum.systems.compression import Outcome
from modicum.systems.drawing import draw_kernels, draw_matrix, save

_SHOWN = 12


def table(outcome: Outcome, folder: Path) -> Table:
    """A line per constrained leaf, and the accuracies below."""
    summary, report = outcome.summary, outcome.result.report
    shown = Table(title=f"{summary['model']} on {summary['data']}, {summary['arm']}, {summary['steps']:,} steps")
    shown.add_column("leaf", no_wrap=True)
    shown.add_column("format", overflow="fold")
    for name in ("kept", "of", "bytes", "less by", "index", "off"):
        shown.add_column(name, justify="right")
    for leaf in report.leaves:
        shown.add_row(
            leaf.path.removeprefix("params/"),
            leaf.layout.replace("+", " + "),
            f"{leaf.kept:,}",
            f"{leaf.weights:,}",
            f"{leaf.packed_bytes:,}",
            f"{leaf.dense_bytes / leaf.packed_bytes:.1f}x",
            f"{leaf.index_bytes:,}",
            f"{leaf.violation_retrained:g}",
        )
    shown.add_section()
    shown.add_row(
        "all",
        "",
        f"{summary['kept']:,}",
        f"{summary['weights']:,}",
        f"{summary['packed_bytes']:,}",
        f"{summary['dense_bytes'] / summary['packed_bytes']:.1f}x",
        f"{summary['index_bytes']:,}",
        f"{summary['violation']:g}",
    )
    shown.caption = (
        "index: bytes that say where weights belong; off: violation of the set. "
        f"Held-out accuracy: dense {100 * summary['dense_accuracy']:.2f}%, projected "
        f"{100 * summary['hard_accuracy']:.2f}%, retrained {100 * summary['accuracy']:.2f}%. {folder}"
    )
    return shown


def figure(outcome: Outcome, path: Path) -> None:
    """The largest constrained layer before and after, and what was chosen in it; a PNG that is whole or not there.

    Convolutions show their kernels and how often each pattern of non-zeros occurs; matrices show where their non-zeros
    lie, outputs downwards.
    """
    leaf = _largest(outcome)
    before = np.asarray(leaves_by_path(outcome.dense.variables)[leaf.path], np.float32)
    after = np.asarray(leaves_by_path(outcome.result.params)[leaf.path], np.float32)
    drawing = Figure(figsize=(11, 4.4), layout="constrained", dpi=120)
    left, middle, right = drawing.subplots(1, 3, width_ratios=(1, 1, 1.2))
    if after.ndim == 4:
        draw_kernels(left, before, f"{leaf.path}: dense")
        draw_kernels(middle, after, leaf.layout)
        _draw_patterns(right, after)
    else:
        draw_matrix(left, before, f"{leaf.path}: dense")
        draw_matrix(middle, after, leaf.layout)
        _draw_counts(right, after)
    save(drawing, path)


def _largest(outcome: Outcome) -> Any:
    """The largest convolution of a window of several elements, else the largest leaf."""
    weights = leaves_by_path(outcome.result.params)

    def rank(leaf: Any) -> tuple[bool, int]:
        shape = np.shape(weights[leaf.path])
        return len(shape) == 4 and shape[0] * shape[1] > 1 and shape[2] > 1, leaf.weights

    return max(outcome.result.report.leaves, key=rank)


def _draw_patterns(axes: Any, weights: np.ndarray) -> None:
    """The most frequent patterns of non-zeros, each as a small grid below its count."""
    height, width, channels, filters = weights.shape
    kernels = (weights != 0).reshape(height * width, channels * filters).T
    found = Counter(map(tuple, kernels[kernels.any(axis=1)].tolist())).most_common(_SHOWN)
    shares = [100 * count / len(kernels) for _, count in found]
    axes.bar(range(len(found)), shares, color="#4c72b0")
    axes.set(xticks=[], ylabel="% of all kernels", xlim=(-0.6, len(found) - 0.4), ylim=(0, 1.25 * max(shares)))
    axes.set_title(f"the {len(found)} most frequent patterns")
    for place, (pattern, _) in enumerate(found):
        inset = axes.inset_axes((place - 0.4, 1.02 * shares[place], 0.8, 0.18 * max(shares)), transform=axes.transData)
        inset.imshow(np.reshape(pattern, (height, width)), cmap="Greys", vmin=0, vmax=1)
        inset.set(xticks=[], yticks=[])


def _draw_counts(axes: Any, weights: np.ndarray) -> None:
    """How many weights each output and each input keeps."""
    kept = weights != 0
    axes.plot(np.sort(kept.sum(axis=0))[::-1], label="per output")
    axes.plot(np.sort(kept.sum(axis=1))[::-1], label="per input")
    axes.set(xlabel="outputs or inputs, sorted", ylabel="non-zero weights")
    axes.legend(fontsize=8)
