"""Constraints as arrays and a hashable rest: what a compiled program takes, carries and is shared by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modicum.admm import leaves
from modicum.admm.leaves import Constraints, as_tuple, constrained_by_path
from modicum.core import Params

Arrays = list[Any]
"""Arrays among the leaves of a pytree, `None` for its other leaves."""


def split(tree: Any) -> tuple[Arrays, tuple[Any, tuple[Any, ...]]]:
    """Arrays of a pytree, and the rest of it as a hashable key: structure and plain numbers.

    Plain numbers stay what they are, so that a constraint may still use them as shapes.

    Args:
        tree: constraints, or what their charts build with.
    """
    flat, treedef = jax.tree.flatten(tree)
    arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in flat]
    numbers = tuple(leaf if array is None else None for leaf, array in zip(flat, arrays, strict=True))
    return arrays, (treedef, numbers)


def join(rest: tuple[Any, tuple[Any, ...]], arrays: Arrays) -> Any:
    """The inverse of `split`."""
    treedef, numbers = rest
    return treedef.unflatten(
        [number if array is None else array for array, number in zip(arrays, numbers, strict=True)]
    )


class Sets(NamedTuple):
    """Constraints as they were given, and what is static of them once they are fitted.

    The arrays of the fitted ones (scales, libraries) are apart: the state of the ADMM stage carries them.

    Attributes:
        given: pytree of constraints or `None`, not yet fitted.
        rest: the second part of `split` of the fitted ones.
    """

    given: Constraints
    rest: Any

    def fitted(self, arrays: Arrays) -> Constraints:
        """The fitted constraints that hold these arrays."""
        return join(self.rest, arrays)

    def refit(self, arrays: Arrays, params: Params, duals: Params) -> Arrays:
        """The arrays of the given constraints fitted to `W + U`, where `U` is the mean over a split's parts.

        Args:
            arrays: of the constraints fitted before.
            params: the parameters `W`.
            duals: the scaled duals `U`.

        Raises:
            ValueError: if a fit cannot be traced, or puts what it reads off a weight into structure or shapes.
        """
        before, weights, duals = (
            constrained_by_path(self.given, tree) for tree in (self.fitted(arrays), params, duals)
        )
        found: Arrays = []
        for path, constraint in constrained_by_path(self.given, self.given).items():
            u = as_tuple(duals[path])
            try:
                after = constraint.fit(weights[path].astype(jnp.float32) + sum(u[1:], u[0]) / len(u))
            except jax.errors.JAXTypeError:
                after = None  # it asked for the value of a traced number
            if _kind(after) != _kind(before[path]):
                raise ValueError(
                    f"refit must be 0 where a fit cannot be traced to the same structure, as that of {path!r}, "
                    f"got {constraint!r}"
                )
            found += split(after)[0]
        return [None if new is None else jnp.asarray(new, old.dtype) for new, old in zip(found, arrays, strict=True)]


def _kind(constraint: Any) -> Any:
    arrays, rest = split(constraint)
    return rest, [None if array is None else array.shape for array in arrays]


def fitted_sets(constraints: Constraints, params: Params) -> tuple[Sets, Arrays]:
    """The constraints fitted to parameters: what of them is static, and their arrays."""
    arrays, rest = split(leaves.fit(constraints, params))
    return Sets(constraints, rest), arrays
