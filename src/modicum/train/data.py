"""Data sets as arrays in memory: `load(name, split)`; no TensorFlow, nothing from the network."""

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from modicum.core import check
from modicum.train import events, prepared, speech, text

VARIABLE = prepared.VARIABLE
"""The environment variable that names the folder of data: the one that contains `tfds/`, `text/` and `events/`."""

_DIGITS_TEST = 500


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What is known of a data set beside its arrays; static under `jit`.

    Attributes:
        name: the name it was loaded by.
        split: the split.
        classes: number of classes (of words, for text).
        mean: statistics of the training split, per channel or band, that the inputs were standardized by;
            images are scaled to 0..1 before. Empty for text and events.
        std: the standard deviations.
        class_names: names of the classes where they have some (the vocabulary, for text).
    """

    name: str
    split: str
    classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()


class Dataset(NamedTuple):
    """A split in memory.

    Attributes:
        inputs: float32 (examples, ...), standardized; int32 (tokens,) for text; uint8 counts for events.
        labels: int32 (examples,); for text the word that follows each.
        info: static facts.
    """

    inputs: np.ndarray
    labels: np.ndarray
    info: DataInfo

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels: what `batches` takes."""
        return self.inputs, self.labels


def load(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    speaker: str | None = None,
    features: str = "log_mel",
    bin_milliseconds: int = events.DEFAULT_BIN_MILLISECONDS,
) -> Dataset:
    """A split of a data set, standardized by the statistics of its training split.

    - `digits`: scikit-learn's bundled 8x8 digits, 1,297 to train and 500 held out, always the same, each class in
      proportion. Needs no folder.
    - `spoken_digit`: log-mel frames of 8 kHz speech, (64, 32) for each recording; with `features="mfcc"` cepstra
      with their slopes, (32, 39). TFDS has one split; takes 0-4 of each speaker and digit are `test` (250), the rest
      `train` (2,250), as its authors say. With `speaker`, all of that speaker's recordings are `test` (500) and
      those of the others `train` (2,000).
    - `wikitext-2`: `train`, `valid` or `test` as one sequence of words.
    - `nmnist-small`: 1,000 recordings of an event camera to train and 100 to test, as counts of events, (34, 34, 34, 2)
      for each in bins of 10 ms: time, row, column, polarity. They stay uint8, a quarter of float32, and are not
      standardized: a model casts its batch.
    - any other name: images with labels that TFDS prepared as `array_record`, `mnist` or `cifar10:3.0.2` for
      instance (the newest version that lies in the folder, where none is named). Parts of a split are written as
      TFDS does, `train[:90%]`.

    Args:
        name: which data set.
        split: which split.
        root: folder that contains `tfds/`, `text/` and `events/`; by default `$MODICUM_DATA`, else
            `~/tensorflow_datasets`.
        speaker: for `spoken_digit`: whom to hold out.
        features: for `spoken_digit`: "log_mel" or "mfcc".
        bin_milliseconds: for `nmnist-small`: length of a bin of time, from 1 to 337; a recording of 337 ms has
            `ceil(337 / bin_milliseconds)` of them.

    Returns:
        Host arrays and static facts.

    Raises:
        ValueError: if there is no such data set, folder, split, speaker, kind of features or length of a bin; the
            sentence says where was looked and what to set.

    Example:
        >>> digits = load("digits", "test")
        >>> digits.inputs.shape, digits.info.classes
        ((500, 8, 8, 1), 10)
    """
    base = name.partition(":")[0]
    if speaker is not None and base != "spoken_digit":
        raise ValueError(f"speaker must be None for data {name!r}, got {speaker!r}: only spoken_digit has speakers")
    check.one_of(speech.FEATURES, features=features)
    if features != "log_mel" and base != "spoken_digit":
        raise ValueError(
            f"features must be 'log_mel' for data {name!r}, got {features!r}: only spoken_digit has others"
        )
    check.integer(1, events.MILLISECONDS, bin_milliseconds=bin_milliseconds)
    if bin_milliseconds != events.DEFAULT_BIN_MILLISECONDS and base != events.NAME:
        raise ValueError(
            f"bin_milliseconds must be {events.DEFAULT_BIN_MILLISECONDS} for data {name!r}, got {bin_milliseconds}: "
            f"only {events.NAME} has bins"
        )
    if base == events.NAME:
        return _events(split, root, bin_milliseconds)
    if base == "digits":
        return _digits(split)
    if base == "spoken_digit":
        return _speech(name, split, root, speaker, features)
    if base == "wikitext-2":
        return _text(split, root)
    return _images(name, split, root)


def _digits_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of 0..16, labels, and which of them are held out."""
    from sklearn.datasets import load_digits  # here: it takes a second, and other data sets do without

    pixels, target = load_digits(return_X_y=True)
    labels = np.asarray(target, np.int32)
    share = np.bincount(labels) * _DIGITS_TEST / len(labels)
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: _DIGITS_TEST - counts.sum()]] += 1
    # each class by the order of fixed random numbers: the raw stream of PCG64 never changes
    order = np.argsort(np.random.PCG64(0).random_raw(len(labels)), kind="stable")
    held_out = np.zeros(len(labels), bool)
    for label, count in enumerate(counts):
        held_out[order[labels[order] == label][:count]] = True
    return np.asarray(pixels, np.uint8).reshape(-1, 8, 8, 1), labels, held_out


def _digits(split: str) -> Dataset:
    _known_split("digits", split, ("train", "test"))
    images, labels, held_out = _digits_arrays()
    mean, std = channel_statistics(images[~held_out], 16)
    chosen = held_out if split == "test" else ~held_out
    info = DataInfo(name="digits", split=split, classes=10, mean=mean, std=std, class_names=tuple("0123456789"))
    return Dataset(_standardized(images[chosen], 16, mean, std), labels[chosen], info)


def _images(name: str, split: str, root: str | Path | None) -> Dataset:
    folder = prepared.find(name, root)
    images, labels, class_names = prepared.read_images(folder, split)
    mean, std = _training_statistics(folder)
    info = DataInfo(name=name, split=split, classes=len(class_names), mean=mean, std=std, class_names=class_names)
    return Dataset(_standardized(images, 255, mean, std), labels, info)


@functools.lru_cache(maxsize=8)
def _training_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return channel_statistics(prepared.read_images(folder, "train")[0], 255)


def _speech(name: str, split: str, root: str | Path | None, speaker: str | None, features: str) -> Dataset:
    _known_split(name, split, ("train", "test"))
    frames, labels, speakers, takes = speech.read(prepared.find(name, root), features)
    if speaker is None:
        held_out = takes < 5
    elif speaker in speakers:
        held_out = speakers == speaker
    else:
        raise ValueError(f"speaker must be one of {', '.join(sorted(set(speakers.tolist())))}, got {speaker!r}")
    training = frames[~held_out]
    mean, std = training.mean((0, 1), dtype=np.float64), training.std((0, 1), dtype=np.float64)
    chosen = held_out if split == "test" else ~held_out
    inputs = ((frames[chosen] - mean) / std).astype(np.float32)
    info = DataInfo(
        name=name,
        split=split,
        classes=10,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        class_names=tuple("0123456789"),
    )
    return Dataset(inputs, labels[chosen], info)


def _text(split: str, root: str | Path | None) -> Dataset:
    _known_split("wikitext-2", split, text.SPLITS)
    tokens, vocabulary = text.read(split, root)
    info = DataInfo(name="wikitext-2", split=split, classes=len(vocabulary), class_names=vocabulary)
    return Dataset(tokens[:-1], tokens[1:], info)


def _events(split: str, root: str | Path | None, bin_milliseconds: int) -> Dataset:
    _known_split(events.NAME, split, events.SPLITS)
    inputs, labels = events.read(split, bin_milliseconds, root)
    return Dataset(inputs, labels, DataInfo(name=events.NAME, split=split, classes=10, class_names=tuple("0123456789")))


def _known_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        near = difflib.get_close_matches(split, splits, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"split of {name} must be one of {', '.join(map(repr, splits))}, got {split!r}{hint}")


def channel_statistics(images: np.ndarray, largest: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels scaled to 0..1; exact, by counting.

    Args:
        images: uint8 (..., channels).
        largest: the pixel value that becomes 1.
    """
    values = np.arange(256) / largest
    means, stds = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        means.append(float(share @ values))
        stds.append(float(np.sqrt(share @ (values - means[-1]) ** 2)))
    return tuple(means), tuple(stds)


def _standardized(images: np.ndarray, largest: int, mean: Any, std: Any) -> np.ndarray:
    # one look-up for each channel: no float64 copy of the whole split
    values = ((np.arange(256)[:, None] / largest - np.array(mean)) / np.maximum(np.array(std), 1e-12)).astype(
        np.float32
    )
    return np.stack([values[images[..., channel], channel] for channel in range(images.shape[-1])], axis=-1)
