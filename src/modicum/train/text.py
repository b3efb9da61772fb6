"""WikiText-2 as one sequence of word numbers."""

import functools
from pathlib import Path

import numpy as np

from modicum.train import prepared

SPLITS = ("train", "valid", "test")


def _words(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [word for line in lines for word in (*line.split(), "<eos>")]


@functools.lru_cache(maxsize=1)
def _vocabulary(path: Path) -> dict[str, int]:
    return {word: i for i, word in enumerate(dict.fromkeys(_words(path)))}


def read(split: str, root: str | Path | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The words of a split as int32, `<eos>` after each line, and the vocabulary in order of first use in training.

    Args:
        split: `train`, `valid` or `test`.
        root: folder that contains `text/`.

    Raises:
        ValueError: if the files are not there, or use a word that training does not.
    """
    folder = prepared.data_folder("wikitext-2", "text", root) / "wikitext-2"
    for path in (folder / "train.txt", folder / f"{split}.txt"):
        if not path.is_file():
            raise ValueError(f"data 'wikitext-2' must lie in {folder}, but {path.name} is not there: {prepared.SET}")
    vocabulary = _vocabulary(folder / "train.txt")
    try:
        tokens = np.array([vocabulary[word] for word in _words(folder / f"{split}.txt")], np.int32)
    except KeyError as error:
        raise ValueError(f"words of {folder / split}.txt must all occur in train.txt, got {error}") from error
    return tokens, tuple(vocabulary)
