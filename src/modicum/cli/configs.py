"""Configs by name: `train/digits` is configs/train/digits.py of a checkout, or of what pip installed."""

import difflib
import functools
import importlib.metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
"""The root of the repository, where this file lies in one."""
_MARK = ("share", "modicum", "configs")
"""Where a wheel puts configs, below the prefix of the environment (`data-files` in pyproject.toml)."""


@functools.cache
def folder() -> Path | None:
    """Where the configs that came with this code lie; None where they are not there."""
    if (CHECKOUT / "configs").is_dir() and (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / "configs"
    try:
        files = importlib.metadata.distribution("modicum").files or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        for depth in range(len(file.parts) - len(_MARK)):
            if file.parts[depth : depth + len(_MARK)] == _MARK:
                path = Path(str(file.locate())).resolve()
                return path.parents[len(file.parts) - depth - len(_MARK) - 1]
    return None


def names(*kinds: str) -> list[str]:
    """All configs, in order: `["train/digits", ...]`.

    Args:
        kinds: folders to look in; all where none is named.
    """
    home = folder()
    found = sorted(home.glob("*/*.py")) if home else []
    return [f"{path.parent.name}/{path.stem}" for path in found if not kinds or path.parent.name in kinds]


def find(word: str | Path) -> Path:
    """The file of a config.

    Args:
        word: a path; or the name of one that came with this code, `train/digits` or `configs/train/digits.py`.

    Raises:
        ValueError: if there is neither.
    """
    path = Path(word)
    if path.is_file():
        return path
    name = str(path.with_suffix("")).removeprefix("configs/")
    known = names()
    if name in known:
        home = folder()
        assert home is not None
        return home / f"{name}.py"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    if not known:
        hint = ", and no configs came with this installation"
    raise ValueError(f"config must be a Python file such as configs/train/digits.py, got {str(word)!r}{hint}")
