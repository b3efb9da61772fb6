"""Checkpoints of any pytree of arrays: one folder per step, written by Orbax, whole or not there at all."""

import gc
import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum.core import check

Tree = Any
"""A pytree whose leaves are JAX or NumPy arrays or numbers; typed PRNG keys are arrays, too."""

_EMPTY = "empty"
_LEFTOVER = re.compile(r"\d+\.(new|old)(\.orbax-checkpoint-tmp.*)?")


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(tree: Tree) -> dict[str, Any]:
    return {f"tree{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _stored(leaf: Any) -> Any:
    """What Orbax writes for a leaf: the words of a key, an array for a number, nothing of devices."""
    if _is_key(leaf):
        return _stored(jax.random.key_data(leaf))
    one_device = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) == 1
    return leaf if one_device or isinstance(leaf, np.ndarray) else np.asarray(leaf)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    elif not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _like(leaf: Any, restored: Any) -> Any:
    """A restored array as the kind of leaf that was asked for."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(restored), impl=str(jax.random.key_impl(jnp.empty((), leaf.dtype))))
    if isinstance(leaf, np.ndarray | np.generic):
        return np.asarray(restored)
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
        return jax.device_put(np.asarray(restored), leaf.sharding)
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jnp.asarray(restored)
    return np.asarray(restored).item()


def steps(folder: str | Path) -> tuple[int, ...]:
    """The steps that a folder has a whole checkpoint of, in ascending order; none where it is absent.

    Args:
        folder: where the checkpoints lie.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return ()
    # Orbax writes to a folder of another name and renames it when all is on disk
    return tuple(sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()))


@contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
    """Orbax's synchronous checkpointer and its arguments; what it says of a damaged file becomes one sentence."""
    # here, as Orbax takes a third of the time that JAX takes to import
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # each process reads, and the first one writes, for itself: Orbax is not to wait for others
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()} if jax.process_count() > 1 else None,
            barrier_sync_key_prefix=f"process{jax.process_index()}",
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer, ocp.args
    finally:
        logger.setLevel(level)


def save(folder: str | Path, step: int, tree: Tree, *, keep: int = 2) -> None:
    """Writes a checkpoint; returns when it is on disk.

    A process killed at any moment leaves the older checkpoints whole and at most a leftover that
    `restore` does not see and the next `save` removes.

    Args:
        folder: where the checkpoints lie; made where absent.
        step: number of the checkpoint, at least 0; a checkpoint of that number is replaced.
        tree: what to save, any pytree of arrays (typed PRNG keys are stored as their words).
        keep: how many of the newest checkpoints stay, at least 1.

    Raises:
        ValueError: if `step` or `keep` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, 7, {"weights": jnp.arange(3)})
        ...     step, tree = restore(folder, {"weights": jnp.zeros(3, int)})
        >>> step, tree["weights"].tolist()
        (7, [0, 1, 2])
    """
    check.integer(0, step=step)
    check.integer(1, keep=keep)
    folder = Path(folder).absolute()
    target, fresh, old = (folder / f"{step}{ending}" for ending in ("", ".new", ".old"))
    # Orbax refuses arrays without elements; `restore` makes them from their shape
    arrays = {name: array for name, leaf in _named(tree).items() if (array := _stored(leaf)).size}
    _remove_leftovers(folder)
    with _orbax() as (checkpointer, args):
        checkpointer.save(fresh, args=args.StandardSave(arrays or {_EMPTY: np.zeros(1)}))
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    _remove_leftovers(folder)
    for outdated in steps(folder)[:-keep]:
        # renamed first: a checkpoint that is half removed must not look whole
        shutil.rmtree((folder / str(outdated)).rename(folder / f"{outdated}.old"))


def _remove_leftovers(folder: Path) -> None:
    if folder.is_dir():
        for entry in folder.iterdir():
            if _LEFTOVER.fullmatch(entry.name):
                shutil.rmtree(entry)


def restore(folder: str | Path, like: Tree) -> tuple[int, Tree] | None:
    """The newest checkpoint of a folder.

    Args:
        folder: where the checkpoints lie.
        like: a tree of the structure, shapes and dtypes that were saved, of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
        The step and the tree, equal bit for bit to what was saved; `None` where there is no checkpoint. It lies on the
        devices of `like` (on one where that is abstract), whatever those were that it was saved from.

    Raises:
        ValueError: if the checkpoint is of another tree than `like`, or cannot be read.
    """
    folder = Path(folder).absolute()
    found = steps(folder)
    if not found:
        return None
    newest = folder / str(found[-1])
    named = _named(like)
    wanted = {name: _abstract(leaf) for name, leaf in named.items()}
    written = {name: array for name, array in wanted.items() if np.prod(array.shape)}
    with _orbax() as (checkpointer, args):
        saved = _reading(newest, lambda: _metadata(checkpointer, newest))
        saved = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in saved.items() if name != _EMPTY
        }
        _check_same(newest, saved, written)
        if written:
            arrays = _reading(newest, lambda: checkpointer.restore(newest, args=args.StandardRestore(written)))
        else:
            arrays = {}
    leaves = [
        _like(leaf, arrays[name] if name in arrays else np.zeros(wanted[name].shape, wanted[name].dtype))
        for name, leaf in named.items()
    ]
    return found[-1], jax.tree.structure(like).unflatten(leaves)


def _metadata(checkpointer: Any, path: Path) -> dict[str, Any]:
    # Orbax finds damage in these while it already reads arrays, and then lets go of an event loop in use
    for file in path.glob("array_metadatas/*"):
        json.loads(file.read_text(encoding="utf-8"))
    found = checkpointer.metadata(path).item_metadata
    if found is None:
        raise ValueError("no readable metadata")
    return found.tree


def _check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    def text(array: Any) -> str:
        return "nothing" if array is None else f"{array.dtype}{list(array.shape)}"

    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise ValueError(
                f"checkpoint {path} must hold {text(wanted.get(name))} at {name}, got {text(saved.get(name))}: "
                "it was saved by another run"
            )


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    # Orbax, TensorStore and JSON raise dozens of types for a damaged file
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    # a failed read leaves coroutines behind that nobody awaits: collected here, they warn nobody later
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
    raise ValueError(f"checkpoint {path} must be whole, got: {reason}; remove that folder to go back to the one before")
