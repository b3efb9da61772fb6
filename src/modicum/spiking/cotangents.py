"""Sums of cotangents over a loop, of trees that may also hold keys and whole numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _absent(leaf: Any) -> bool:
    return leaf is None


def zeros(tree: Any) -> Any:
    """Where a sum starts: zeros for each floating leaf, None for what has no cotangent."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else None, tree)


def added(total: Any, part: Any) -> Any:
    """The sum and one step's part of it."""
    return jax.tree.map(lambda sum_, new: None if sum_ is None else sum_ + new, total, part, is_leaf=_absent)


def complete(total: Any, like: Any) -> Any:
    """The sum as a custom derivative returns it: `float0` where JAX wants that for what has no cotangent."""

    def leaf(sum_: Any, value: Any) -> Any:
        return np.zeros(jnp.shape(value), jax.dtypes.float0) if sum_ is None else sum_

    return jax.tree.map(leaf, total, like, is_leaf=_absent)
