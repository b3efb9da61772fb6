"""What a module takes and gives: names, shapes, dtypes."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from modicum.core import leaves_by_path


class Tensor(NamedTuple):
    """One input or output."""

    name: str
    """`x` or `y`, with the path below it where it is a tree: `x/image`."""
    shape: tuple[int | None, ...]
    """`None` where the batch is free."""
    dtype: str


def inputs(exported: export.Exported) -> tuple[Tensor, ...]:
    """What the module takes."""
    (x,), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    return _tensors("x", x)


def outputs(exported: export.Exported) -> tuple[Tensor, ...]:
    """What the module returns."""
    return _tensors("y", jax.tree.unflatten(exported.out_tree, exported.out_avals))


def _tensors(root: str, tree: Any) -> tuple[Tensor, ...]:
    def shape(aval: Any) -> tuple[int | None, ...]:
        return tuple(None if export.is_symbolic_dim(size) else int(size) for size in aval.shape)

    return tuple(
        Tensor(f"{root}/{path}" if path else root, shape(aval), aval.dtype.name)
        for path, aval in leaves_by_path(tree).items()
    )


def check_inputs(exported: export.Exported, x: Any) -> None:
    """Whether `x` is what the module takes.

    Raises:
        ValueError: naming the array that does not fit and what is allowed.
    """
    expected = inputs(exported)
    given = jax.tree.structure(((x,), {}))
    if given != exported.in_tree:
        names = ", ".join(tensor.name for tensor in expected)
        raise ValueError(f"x must have the arrays {names} and no others, got structure {jax.tree.structure(x)}")
    batches = set()
    for tensor, leaf in zip(expected, jax.tree.leaves(x), strict=True):
        shape, dtype = np.shape(leaf), jax.dtypes.canonicalize_dtype(jax.dtypes.result_type(leaf)).name
        fits = len(shape) == len(tensor.shape) and all(
            size in (None, real) for size, real in zip(tensor.shape, shape, strict=True)
        )
        if not fits or dtype != tensor.dtype:
            allowed = ", ".join("any" if size is None else str(size) for size in tensor.shape)
            raise ValueError(
                f"{tensor.name} must have shape ({allowed}) and dtype {tensor.dtype}, got {tuple(shape)} and {dtype}"
            )
        batches |= {real for size, real in zip(tensor.shape, shape, strict=True) if size is None}
    if len(batches) > 1 or 0 in batches:
        raise ValueError(
            f"x must have one batch of at least 1 in all arrays, got {' and '.join(map(str, sorted(batches)))}"
        )
