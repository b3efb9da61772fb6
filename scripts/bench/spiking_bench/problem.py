"""The folder that the engines of all environments read; needs NumPy only."""

import json
from pathlib import Path

import numpy as np


class Problem:
    """A folder: the numbers of the network, its weights, its data."""

    def __init__(self, folder: Path) -> None:
        self.settings = json.loads((folder / "network.json").read_text())
        with np.load(folder / "weights.npz") as arrays:
            self.kernels = [arrays[name] for name in sorted(arrays.files)]
        with np.load(folder / "data.npz") as arrays:
            self.events, self.labels = arrays["events"], arrays["labels"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a layer's images: height, width, channels."""
        return (*self.events.shape[2:4], self.kernels[0].shape[-1])
