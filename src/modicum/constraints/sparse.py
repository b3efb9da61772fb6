"""Sets of weights with few non-zeros: elements of a layer or of each small group, kernels of a filter, channels."""

import math
from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any

import jax

from modicum.constraints.base import Traceable, relaxed_count, view_shape
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

    def _relaxed(self, shape: tuple[int, ...], share: Traceable) -> "TopK":
        return replace(self, k=relaxed_count(self.k, math.prod(shape), share))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NofM(Member):
    """At most `n` non-zero elements among every `m` consecutive ones along an axis: 2:4 and the like.

    The projection keeps the `n` largest magnitudes of each group; equal ones go to the lower index. The last group
    may be shorter, and then keeps all it has or `n`.

    Args:
        n: elements kept in each group, from 1 to `m`; may be traced, but not to encode.
        m: consecutive elements in a group, at least 1.
        axis: the axis along which they are consecutive; by default the input axis of a dense `(in, out)` or HWIO
            weight, along which a product sums.

    Example:
        >>> import jax.numpy as jnp
        >>> NofM(1, 2).project(jnp.array([[1.0], [-3.0], [2.0], [2.0], [5.0]])).T.tolist()
        [[0.0, -3.0, 2.0, 0.0, 5.0]]

    Reference:
        2:4 sparsity of tensor cores.
    """

    n: Traceable
    m: int = field(metadata={"static": True})
    axis: int = field(default=-2, metadata={"static": True})

    def __post_init__(self) -> None:
        check.integer(1, m=self.m)
        check.integer(axis=self.axis)
        if isinstance(self.n, Number | str):
            check.integer(1, self.m, n=self.n)

    def part(self) -> dict[str, Any]:
        """`n` of every `m`."""
        return {"k": self.n, "along": (int(self.axis), int(self.m))}

    def _relaxed(self, shape: tuple[int, ...], share: Traceable) -> "NofM":
        del shape
        return replace(self, n=relaxed_count(self.n, self.m, share))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Channels(Member):
    """At most `k` non-zero filters (output channels), or input channels, of the layer.

    The projection keeps the slices of largest energy `sum(w^2)`; equal ones go to the lower index. A layer so pruned
    is a smaller dense layer.

    Args:
        k: slices kept; may be traced, but not to encode.
        axis: -1 for filters, -2 for input channels, of a dense `(in, out)` or HWIO weight.

    Example:
        >>> import jax.numpy as jnp
        >>> Channels(1).project(jnp.array([[1.0, 2.0], [1.0, 3.0]])).tolist()
        [[0.0, 2.0], [0.0, 3.0]]
    """

    k: Traceable
    axis: int = field(default=-1, metadata={"static": True})

    def __post_init__(self) -> None:
        _check_k(self.k)
        check.one_of((-1, -2), axis=self.axis)

    def part(self) -> dict[str, Any]:
        """`k` filters; or `k` kernels, the same ones in all filters."""
        return {"filters": self.k} if self.axis == -1 else {"k": self.k, "group": 0}

    def _relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Channels":
        return replace(self, k=relaxed_count(self.k, shape[self.axis], share))


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

    def _relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Kernels":
        outputs, kernels, _ = view_shape(shape, "kernels")
        return replace(self, k=relaxed_count(self.k, kernels if self.balanced else outputs * kernels, share))
