"""Checkpoints of a tree of arrays: one atomic folder per step, by Orbax."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    # Orbax writes to a folder of another name and renames it when all is on disk
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def save(folder: Path, step: int, tree: Any, keep: int = 2) -> None:
    """Writes the state after `step`; a kill at any moment leaves the older checkpoints whole.

    Args:
        folder: where the checkpoints lie; made where absent.
        step: number of the checkpoint, at least 0; one that exists is replaced.
        tree: pytree of arrays.
        keep: how many of the newest checkpoints stay.
    """
    folder = folder.absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / str(step), tree, force=True)
        checkpointer.wait_until_finished()
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(folder / str(old))


def restore(folder: Path, like: Any) -> tuple[int, Any] | None:
    """The newest checkpoint of a folder.

    Args:
        folder: where the checkpoints lie.
        like: pytree of arrays or of `jax.ShapeDtypeStruct` with the structure that was saved.

    Returns:
        The step and the tree, or `None` where there is no checkpoint.

    Raises:
        ValueError: if the newest checkpoint cannot be read, or has another structure.
    """
    folder = folder.absolute()
    steps = _steps(folder)
    if not steps:
        return None
    newest = folder / str(steps[-1])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return steps[-1], checkpointer.restore(newest, abstract)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"checkpoint {newest} must be a whole checkpoint of this run, got: {reason}") from error
