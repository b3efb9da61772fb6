"""Fixed-point weights: symmetric levels with zero on the grid."""

from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any

import jax
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable
from modicum.constraints.grid import best_scale
from modicum.constraints.member import Member
from modicum.core import check


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Levels(Member):
    """Every weight is `q * scale` with a whole `q` from `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`.

    The projection rounds to the nearest level (halves to the even one) and clips. Zero is on the grid, so that a
    pruned weight is a level too; one bit would leave no room for it, hence at least 2.

    Args:
        bits: width of a level, sign included, from 2 to 8.
        scale: distance between levels, above 0; may be traced. None searches the one of least squared error,
            at every projection until `fit` freezes it. Freeze it while training: a scale that follows the weights
            makes them chase their own projection.

    Example:
        >>> import jax.numpy as jnp
        >>> Levels(bits=3, scale=0.5).project(jnp.array([0.6, -9.0])).tolist()
        [0.5, -1.5]
    """

    bits: int = field(metadata={"static": True})
    scale: Traceable | None = None

    def __post_init__(self) -> None:
        check.integer(2, 8, bits=self.bits)
        if isinstance(self.scale, Number | str):
            check.positive(scale=self.scale)

    def part(self) -> dict[str, Any]:
        """A grid."""
        return {"bits": self.bits, "scale": self.scale}

    def fit(self, w: Float[Array, " ..."]) -> "Levels":
        """The same levels with the scale of least squared error, unless they have one."""
        self.check(w.shape)
        return self if self.scale is not None else replace(self, scale=best_scale(w, self.bits))
