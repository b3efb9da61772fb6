"""Event-camera recordings: from a list of events to counts in bins of time, row, column and polarity."""

import functools
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer, UInt8

from modicum.core import check
from modicum.train import prepared

NAME = "nmnist-small"
SPLITS = ("train", "test")
MILLISECONDS = 337
"""Length of a recording: of the longest one, which the others are filled up to."""
DEFAULT_BIN_MILLISECONDS = 10
_SIDE, _POLARITIES = 34, 2
_ADDRESSES = _POLARITIES * _SIDE * _SIDE


class _Recordings(NamedTuple):
    """The file's arrays: recording `i` has the addresses from `offsets[i]` to `offsets[i + 1]`, in order of time."""

    addresses: np.ndarray
    counts: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    train: int


def binned(
    addresses: Integer[np.ndarray, " n"], counts: Integer[np.ndarray, " milliseconds"], bin_milliseconds: int
) -> UInt8[np.ndarray, " t h w 2"]:
    """How many events of a recording fall in each bin of time, row, column and polarity, at most 255.

    Args:
        addresses: of the events in order of time: `1156 polarity + 34 row + column`, from 0 to 2,311.
        counts: events in each millisecond; they add up to `n`.
        bin_milliseconds: length of a bin, at least 1; the last one may be cut short.

    Returns:
        `ceil(milliseconds / bin_milliseconds)` steps of 34 rows, 34 columns and 2 polarities.

    Example:
        >>> frames = binned(np.array([35, 35, 1156 + 35]), np.array([2, 0, 0, 1]), 3)
        >>> frames.shape, frames[:, 1, 1].tolist()
        ((2, 34, 34, 2), [[2, 0], [0, 1]])
    """
    steps = -(-len(counts) // bin_milliseconds)
    times = np.repeat(np.arange(len(counts)) // bin_milliseconds, counts)
    polarities, places = np.divmod(addresses.astype(np.int64), _SIDE * _SIDE)
    cells = (times * _SIDE * _SIDE + places) * _POLARITIES + polarities
    # sorted, not counted in an array of all cells: most are empty, in bins of 1 ms all but one in two hundred
    occupied, found = np.unique(cells, return_counts=True)
    frames = np.zeros(steps * _ADDRESSES, np.uint8)
    frames[occupied] = np.minimum(found, 255)
    return frames.reshape(steps, _SIDE, _SIDE, _POLARITIES)


@functools.lru_cache(maxsize=1)
def _recordings(path: Path) -> _Recordings:
    """The file as it is, 12 MB; it stays in memory, since the second split is read from it, too."""
    try:
        # opened here, since of a damaged file np.load would leave it to the garbage collector to close
        with path.open("rb") as source, np.load(source) as file:
            arrays = [file[name] for name in ("addr", "counts", "offsets", "label", "n_train")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"data in {path} must be whole, got: {str(error).splitlines()[0]}") from error
    addresses, counts, offsets, labels, train = arrays
    size = len(labels)
    if (
        counts.shape != (size, MILLISECONDS)
        or offsets.shape != (size + 1,)
        or offsets[0] != 0
        or offsets[-1] != len(addresses)
        or (counts.sum(1) != np.diff(offsets)).any()
        or addresses.max(initial=0) >= _ADDRESSES
        or not 0 <= train <= size
    ):
        raise ValueError(f"data in {path} must be whole, got: arrays that do not fit each other")
    return _Recordings(addresses, counts, offsets, labels.astype(np.int32), int(train))


def read(
    split: str, bin_milliseconds: int, root: str | Path | None = None
) -> tuple[UInt8[np.ndarray, " n t 34 34 2"], Int[np.ndarray, " n"]]:
    """A split of the small N-MNIST: counts of events and labels.

    The result takes 79 kB for each recording in bins of 10 ms and 779 kB in bins of 1 ms. Recordings are binned one
    after another, so that making it takes no second copy.

    Args:
        split: `train`, the first 1,000 recordings of the file, or `test`, the other 100.
        bin_milliseconds: length of a bin, from 1 to 337.
        root: folder that contains `events/`.

    Raises:
        ValueError: if the file is not there or damaged, or a bin is of no such length.

    Reference:
        Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", Frontiers
        in Neuroscience 2015. This is a subset of 1,100 of its 70,000 recordings, and its times are whole milliseconds:
        a score on it is none on N-MNIST.
    """
    check.integer(1, MILLISECONDS, bin_milliseconds=bin_milliseconds)
    path = prepared.data_folder(NAME, "events", root) / NAME / "nmnist_small.npz"
    if not path.is_file():
        raise ValueError(f"data {NAME!r} must lie in {path.parent}, but {path.name} is not there: {prepared.SET}")
    file = _recordings(path)
    chosen = range(file.train) if split == "train" else range(file.train, len(file.labels))
    inputs = np.zeros((len(chosen), -(-MILLISECONDS // bin_milliseconds), _SIDE, _SIDE, _POLARITIES), np.uint8)
    for row, i in enumerate(chosen):
        addresses = file.addresses[file.offsets[i] : file.offsets[i + 1]]
        inputs[row] = binned(addresses, file.counts[i], bin_milliseconds)
    return inputs, file.labels[chosen.start : chosen.stop].copy()
