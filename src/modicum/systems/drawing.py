"""Pictures of weights, for the figures that runs end with."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def save(drawing: Figure, path: Path) -> None:
    """Writes a PNG that is whole or not there; the same drawing gives the same bytes."""
    unfinished = path.with_name(f"{path.stem}.tmp.png")
    # no software version in the file
    drawing.savefig(unfinished, metadata={"Software": None})
    os.replace(unfinished, path)


def draw_kernels(axes: Any, weights: np.ndarray, title: str, rows: int = 8, columns: int = 8) -> None:
    """The kernels of the first filters (columns) and input channels (rows), one tile each.

    Args:
        axes: where to draw.
        weights: HWIO.
        title: what is shown.
        rows: input channels shown at most.
        columns: filters shown at most.
    """
    height, width, channels, filters = weights.shape
    rows, columns = min(rows, channels), min(columns, filters)
    tiles = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for channel, unit in np.ndindex(rows, columns):
        top, side = channel * (height + 1), unit * (width + 1)
        tiles[top : top + height, side : side + width] = weights[:, :, channel, unit]
    limit = float(np.nanmax(np.abs(tiles))) or 1.0
    axes.imshow(tiles, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(title=title, xlabel="filters", ylabel="input channels", xticks=[], yticks=[])


def draw_matrix(axes: Any, weights: np.ndarray, title: str) -> None:
    """A dense kernel `(in, out)` as papers have it: outputs downwards, inputs to the right."""
    limit = float(np.quantile(np.abs(weights), 0.999)) or float(np.max(np.abs(weights))) or 1.0
    axes.imshow(weights.T, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
    axes.set(title=title, xlabel="inputs", ylabel="outputs")
