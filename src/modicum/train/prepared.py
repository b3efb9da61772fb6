"""Folders that TFDS prepared, read without TensorFlow; failures as one sentence."""

import difflib
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "MODICUM_DATA"
SET = f"set {VARIABLE} to the folder that contains tfds/, text/ and events/"


def data_folder(name: str, kind: str, root: str | Path | None) -> Path:
    """Where data of a kind lies: `root/kind` where that exists, else `root` itself.

    Args:
        name: what is looked for, for the message.
        kind: `tfds` or `text`.
        root: the folder of all data; by default `$MODICUM_DATA`, else `~/tensorflow_datasets`.

    Raises:
        ValueError: if the folder does not exist.
    """
    if root is None:
        root = os.environ.get(VARIABLE) or Path.home() / "tensorflow_datasets"
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"data {name!r} must lie in {root / kind}, but there is no folder {root}: {SET}")
    return root / kind if (root / kind).is_dir() else root


def _version(folder: Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def find(name: str, root: str | Path | None = None) -> Path:
    """The folder of a prepared data set.

    Args:
        name: `name`, `name/config`, either with `:version`; without, the newest version that is there.
        root: the folder of all data.

    Raises:
        ValueError: if it is not there; the sentence lists what is.
    """
    base, _, version = name.partition(":")
    folder = data_folder(name, "tfds", root)
    ready = sorted((info.parent for info in (folder / base).glob(f"{version or '*'}/dataset_info.json")), key=_version)
    if ready:
        return ready[-1]
    names = sorted(
        {
            "/".join(info.relative_to(folder).parts[:-2])
            for depth in ("*/*", "*/*/*")
            for info in folder.glob(f"{depth}/dataset_info.json")
        }
    )
    near = difflib.get_close_matches(base, [*names, "digits", "wikitext-2", "nmnist-small"], 1)
    hint = f"did you mean {near[0]!r}, or else " if near and near[0] != base else ""
    there = f"that folder holds {', '.join(names)}" if names else "that folder holds no prepared data set"
    raise ValueError(f"data {name!r} must lie in {folder / base / (version or '')}, but {there}: {hint}{SET}")


def read(folder: Path, split: str) -> tuple[list[Any], Any]:
    """The examples of a split, in TFDS's order, and the data set's `features`.

    Raises:
        ValueError: if there is no such split, or the files are no `array_record`.
    """
    import tensorflow_datasets as tfds  # here: it takes two seconds, and the digits do without

    with warnings.catch_warnings():
        # DeprecationWarnings of TFDS and its own dependencies
        warnings.simplefilter("ignore")
        builder = tfds.builder_from_directory(folder)
        base = split.partition("[")[0]
        if base not in builder.info.splits:
            known = ", ".join(map(repr, builder.info.splits))
            raise ValueError(f"split of {folder.parent.name} must be one of {known} in {folder}, got {split!r}: {SET}")
        try:
            source: Any = builder.as_data_source(split=split)
            return list(source.__getitems__(range(len(source)))), builder.info.features
        except NotImplementedError as error:
            raise ValueError(
                f"data in {folder} must be prepared with file_format='array_record', got another format: {SET}"
            ) from error
        except (ValueError, AssertionError) as error:
            raise ValueError(
                f"split must be written as in 'train' or 'train[:90%]', got {split!r}: {str(error).splitlines()[0]}"
            ) from error
        except (OSError, RuntimeError) as error:
            raise ValueError(f"data in {folder} must be whole, got: {str(error).splitlines()[0]}") from error


@functools.lru_cache(maxsize=8)
def read_images(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (uint8, read-only), labels (int32) and the names of the classes; the last few splits stay in memory.

    Raises:
        ValueError: if the data set is none of uint8 images of one size with `image` and `label`.
    """
    rows, features = read(folder, split)
    if not {"image", "label"} <= set(features):
        raise ValueError(f"data in {folder} must have features image and label, got {', '.join(features)}")
    if not rows:
        raise ValueError(f"split must hold at least one example, got {split!r} of {folder}")
    if len({row["image"].shape for row in rows}) != 1 or rows[0]["image"].dtype != np.uint8:
        raise ValueError(f"images in {folder} must be uint8 of one size, got several sizes or {rows[0]['image'].dtype}")
    images = np.stack([row["image"] for row in rows])
    labels = np.array([row["label"] for row in rows], np.int32)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels, tuple(features["label"].names)
