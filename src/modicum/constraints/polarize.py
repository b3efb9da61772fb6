"""Polarized fragments: weights that share a crossbar's column segment have one sign."""

from dataclasses import dataclass, field
from typing import Any

import jax

from modicum.constraints.member import Member
from modicum.core import check


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Polarized(Member):
    """Every fragment, `fragment` consecutive rows down a column, holds weights of one sign (and zeros).

    The rows of a column run kernel-major: input channel, then the window row by row. The projection keeps the sign
    of larger energy, `max(sum_(w>0) w^2, sum_(w<0) w^2)`, positive where they are equal. (The sign of the sum, an
    obvious choice, is not the nearest.)

    Args:
        fragment: rows per fragment, at least 1; the last fragment of a column may be shorter.

    Example:
        >>> import jax.numpy as jnp
        >>> Polarized(2).project(jnp.array([[3.0], [-2.0], [1.0]])).T.tolist()
        [[3.0, 0.0, 1.0]]

    Reference:
        FORMS, fine-grained polarized ReRAM: fragment polarization.
    """

    fragment: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        check.integer(1, fragment=self.fragment)

    def part(self) -> dict[str, Any]:
        """A fragment."""
        return {"fragment": self.fragment}
