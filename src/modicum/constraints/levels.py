"""Weights on a symmetric grid with zero on it: fixed point, powers of two, few non-zero cells."""

from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any

import jax
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable
from modicum.constraints.grid import KINDS, Grid, Kind, search_scale
from modicum.constraints.member import Member
from modicum.core import check


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Levels(Member):
    """Every weight is `q * scale` or `-q * scale` with a whole `q` from a list that `kind` names.

    | kind | `q` | what for |
    |---|---|---|
    | `fixed` | 0, 1, ..., `2^(bits-1) - 1` | integer multipliers |
    | `powers` | 0 and `2^j`, `j = 0, ..., 2^(bits-1) - 2` | shifts in place of multiplications |
    | `slices` | below `2^(bits-1)`, at most `slices` cells of `cell_bits` bits not zero | weights that cost few memory cells |

    The projection rounds to the nearest level (halves to the even one in `fixed`, toward zero else) and clips. Zero
    is on the grid, so that a pruned weight is a level too; one bit would leave no room for it, hence at least 2.

    Args:
        bits: width of a level, sign included, from 2 to 8; from 2 to 5 for `powers`.
        scale: distance between levels, above 0; may be traced. None searches the one of least squared error,
            at every projection until `fit` freezes it. Freeze it while training: a scale that follows the weights
            makes them chase their own projection.
        kind: `fixed`, `powers` or `slices`.
        cell_bits: bits a memory cell holds, from 1 to 7; cells are counted from the lowest bit (`slices` only).
        slices: cells of a weight that may be non-zero, at least 1 (`slices` only).

    Example:
        >>> import jax.numpy as jnp
        >>> Levels(bits=3, scale=0.5).project(jnp.array([0.6, -9.0])).tolist()
        [0.5, -1.5]
        >>> Levels(bits=4, scale=1.0, kind="powers").project(jnp.array([2.9, 3.1, -99.0])).tolist()
        [2.0, 4.0, -64.0]
        >>> Levels(bits=5, scale=1.0, kind="slices").project(jnp.array([3.2, 5.0, -15.0])).tolist()
        [3.0, 4.0, -12.0]

    Reference:
        FORMS stores a weight in cells of 2 bits; powers of two as in incremental network quantization.
    """  # noqa: E501

    bits: int = field(metadata={"static": True})
    scale: Traceable | None = None
    kind: Kind = field(default="fixed", metadata={"static": True})
    cell_bits: int = field(default=2, metadata={"static": True})
    slices: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        check.one_of(KINDS, kind=self.kind)
        check.integer(2, 5 if self.kind == "powers" else 8, bits=self.bits)
        check.integer(1, 7, cell_bits=self.cell_bits)
        check.integer(1, slices=self.slices)
        if isinstance(self.scale, Number | str):
            check.positive(scale=self.scale)

    @property
    def grid(self) -> Grid:
        """Which multiples of the scale are levels."""
        return Grid(self.bits, self.kind, self.cell_bits, self.slices)

    def part(self) -> dict[str, Any]:
        """A grid."""
        return {"grid": self.grid, "scale": self.scale}

    def fit(self, w: Float[Array, " ..."]) -> "Levels":
        """The same levels with the scale of least squared error, unless they have one."""
        self.check(w.shape)
        return self if self.scale is not None else replace(self, scale=search_scale(w, self.grid))
