"""Sets of weights with few non-zeros: elements of a layer, kernels of a filter."""

from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import jax

from modicum.constraints.base import Traceable
from modicum.constraints.member import Member
from modicum.core import check


def _check_k(k: Traceable) -> None:
    # Arrays, tracers and the placeholders of tree transformations pass: they meet `check` with the weight.
    if isinstance(k, Number | str):
        check.integer(1, k=k)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopK(Member):
    """At most `k` non-zero elements in the whole weight, of any shape.

    The projection keeps the `k` largest magnitudes; equal ones go to the lower index.

    Args:
        k: elements kept, from 1 to the size of the weight; may be traced (`vmap` over rates), but not to encode.

    Example:
        >>> import jax.numpy as jnp
        >>> TopK(2).project(jnp.array([1.0, -3.0, 2.0])).tolist()
        [0.0, -3.0, 2.0]
    """

    k: Traceable

    def __post_init__(self) -> None:
        _check_k(self.k)

    def part(self) -> dict[str, Any]:
        """`k` elements."""
        return {"k": self.k, "elements": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kernels(Member):
    """Connectivity: at most `k` non-zero kernels per filter, or per layer.

    A kernel is the `kh * kw` window between one input and one output channel; in a dense weight, one element. The
    projection keeps the kernels of largest energy `sum(w^2)`; equal ones go to the lower input channel.

    Args:
        k: kernels kept; may be traced, but not to encode.
        balanced: whether `k` counts per filter (output channel), so that all filters have equal work;
            else over the layer, ties to the lower filter.
        group: consecutive filters that keep the same input channels; only with `balanced`.

    Reference:
        PatDNN's connectivity pruning; balanced per filter as in its authors' later code.
    """

    k: Traceable
    balanced: bool = field(default=True, metadata={"static": True})
    group: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        _check_k(self.k)
        check.one_of((True, False), balanced=self.balanced)
        check.integer(1, group=self.group)
        if self.group > 1 and not self.balanced:
            raise ValueError(f"group must be 1 where kernels are counted over the layer, got {self.group}")

    def part(self) -> dict[str, Any]:
        """`k` kernels."""
        return {"k": self.k, "balanced": self.balanced, "group": self.group}
