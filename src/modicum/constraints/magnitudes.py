"""The nearest weight whose blocks are free, of one magnitude, or zero; and the coordinates it leaves free."""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modicum.constraints import assign, base
from modicum.constraints.base import Traceable
from modicum.constraints.direct import kept
from modicum.constraints.grid import Grid
from modicum.constraints.microblocks import Blocking, mean

_STATIC = {"static": True}
_EXACT = lax.Precision.HIGHEST  # accelerators would round energies to bfloat16


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is asked of a weight.

    Attributes:
        unified: blocks to unify, per super-block.
        pruned: blocks to set to zero, per super-block.
        scale: of the grid.
        table: positions each pattern keeps, `(p, taps)`; None where blocks are full.
        blocking: cut into blocks.
        width: positions a pattern keeps.
        grid: which multiples of the scale are levels; None for floats.
        prunes: whether blocks are pruned at all.
    """

    unified: Any
    pruned: Any
    scale: Traceable | None = None
    table: Any = None
    blocking: Blocking = field(metadata=_STATIC)
    width: int = field(default=0, metadata=_STATIC)
    grid: Grid | None = field(default=None, metadata=_STATIC)
    prunes: bool = field(default=False, metadata=_STATIC)

    def counts(self) -> Float[np.ndarray, " g b"]:
        """Elements on the support of each block, at least 1."""
        real = self.blocking.real()
        if self.width:
            real = real.reshape(*real.shape[:2], -1, real.shape[2] // self.blocking.block[0])[:, :, 0]
        return np.maximum(real.sum(axis=-1) * (self.width or 1), 1).astype(np.float32)

    def rounded(self, x: Array, dtype: Any) -> Array:
        """The nearest numbers the weight may hold."""
        return base.in_dtype(x, dtype) if self.grid is None else self.grid.round(x, self.scale, dtype)


class Point(NamedTuple):
    """The nearest point, by block."""

    unified: Bool[Array, " g b"]
    pruned: Bool[Array, " g b"]
    pattern: Int[Array, " g b kernels"] | None
    support: Bool[Array, " g b n"]
    """Which elements may differ from zero."""
    value: Float[Array, " g b n"]


def _supports(problem: Problem, x: Array, lost: Array, dropped: Array) -> tuple[Array | None, Array, Array]:
    """Patterns of kernels and support of elements, for a unified and for a free block, stacked."""
    real = jnp.asarray(problem.blocking.real())
    if problem.table is None:
        return None, real, real
    on = jnp.asarray(problem.table).astype(jnp.float32)
    kernels = (*x.shape[:2], on.shape[1], -1)

    def over(numbers: Array, table: Array) -> Array:
        return jnp.einsum("gbtc,pt->gbcp", numbers.reshape(kernels), table, precision=_EXACT)

    # One magnitude a loses ||w||^2 - 2 a sum(|w|) + n a^2: least where the sum is largest, whatever a is.
    unified = jnp.argmax(over(jnp.abs(x) * base.unit(x), on), axis=-1)
    free = jnp.argmin(over(lost, on) + over(dropped, 1 - on), axis=-1)
    patterns = jnp.stack([unified, free]).astype(jnp.int32)
    on_unified, on_free = jnp.moveaxis(on[patterns] == 1, -1, -2).reshape(2, *x.shape)
    return patterns, on_unified & real, on_free & real


@functools.partial(jax.jit, inline=True)
def solve(problem: Problem, w: Array) -> Point:
    """The nearest point: the best block of each kind, then the assignment of least total loss."""
    x = problem.blocking.blocks(w.astype(jnp.float32))
    fixed = lax.stop_gradient(x)
    factor = base.unit(fixed)
    free = x if problem.grid is None else problem.rounded(x, w.dtype)
    dropped = base.floored(jnp.square(fixed * factor), fixed == 0)
    lost = base.floored(jnp.square((fixed - lax.stop_gradient(free)) * factor), fixed == free)
    patterns, on_unified, on_free = _supports(problem, fixed, lost, dropped)

    shared = problem.rounded(mean(jnp.abs(x), on_unified, problem.counts()), w.dtype)[..., None]
    off = jnp.abs(fixed) - lax.stop_gradient(shared)
    lost_unified = jnp.where(on_unified, base.floored(jnp.square(off * factor), off == 0), dropped).sum(axis=-1)
    lost_free = jnp.where(on_free, lost, dropped).sum(axis=-1)
    exists = jnp.asarray(problem.blocking.real().any(axis=-1))
    unify = jnp.where(exists, lost_unified - lost_free, jnp.inf)
    k, p = (jnp.asarray(count, jnp.int32) for count in (problem.unified, problem.pruned))
    if problem.prunes:
        prune = jnp.where(exists, jnp.maximum(dropped.sum(axis=-1) - lost_free, 0.0), jnp.inf)
        unified, pruned = assign.two_classes(unify, prune, k, p)
    else:
        unified, pruned = assign.smallest(unify, k), jnp.zeros(exists.shape, bool)

    of_unified = unified[..., None]
    support = jnp.where(of_unified, on_unified, on_free) & ~pruned[..., None]
    value = jnp.where(of_unified, jnp.where(fixed < 0, -shared, shared), free)
    pattern = None if patterns is None else jnp.where(of_unified, patterns[0], patterns[1])
    return Point(unified, pruned, pattern, support, kept(support, value))


@functools.partial(jax.jit, inline=True)
def project(problem: Problem, w: Array) -> Array:
    """The nearest point, in the shape and dtype of `w`."""
    return problem.blocking.weight(solve(problem, w).value).astype(w.dtype)


@jax.custom_vjp
def settle(theta: Array, value: Array, shares: "Shares") -> Array:
    """`value`, with the gradient projected onto the directions a block leaves free.

    A free element passes its gradient through, as in `chart.settle`; the elements of a unified block share the mean
    of theirs along the signs, so that a step on `theta` is a step of the magnitude; it is zero where a descent step
    would push a magnitude below zero or an element past the end of the grid.
    """
    del theta, shares
    return value


class Shares(NamedTuple):
    """What `settle` needs for its gradient."""

    unified: Bool[Array, " g b"]
    support: Bool[Array, " g b n"]
    negative: Bool[Array, " g b n"]
    count: Float[Array, " g b"]
    at_low: Bool[Array, " g b n"]
    at_high: Bool[Array, " g b n"]


def _settle_forward(theta: Array, value: Array, shares: Shares) -> tuple[Array, Shares]:
    del theta
    return value, shares


def _settle_backward(shares: Shares, g: Array) -> tuple[Array, None, None]:
    g = jnp.where(shares.support, g, 0.0)
    along = jnp.where(shares.negative, -g, g).sum(axis=-1, keepdims=True) / shares.count[..., None]
    along = jnp.where((shares.at_low & (along > 0)) | (shares.at_high & (along < 0)), 0.0, along)
    alone = jnp.where((shares.at_low & (g > 0)) | (shares.at_high & (g < 0)), 0.0, g)
    together = jnp.where(shares.support, jnp.where(shares.negative, -along, along), 0.0)
    return jnp.where(shares.unified[..., None], together, alone), None, None


settle.defvjp(_settle_forward, _settle_backward)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SharedMagnitudes:
    """Builds a weight with unified blocks from free coordinates; a pytree that is called, like `Box`.

    Attributes:
        unified: which blocks have one magnitude, `(g, b)`.
        support: which elements may differ from zero, `(g, b, n)`.
        negative: which elements of unified blocks are negative.
        count: elements on the support of each block.
        scale: of the grid; None for none.
        blocking: cut into blocks.
        grid: which multiples of the scale are levels; None for no grid.
        dtype: dtype of the weight.
    """

    unified: Any
    support: Any
    negative: Any
    count: Any
    scale: Any = None
    blocking: Blocking = field(metadata=_STATIC)
    grid: Grid | None = field(default=None, metadata=_STATIC)
    dtype: str = field(default="float32", metadata=_STATIC)

    def __call__(self, theta: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """The weight that `theta` stands for: unified blocks by the mean of `theta` along their signs, at least 0."""
        x = self.blocking.blocks(theta)
        along = mean(jnp.where(self.negative, -x, x), self.support, self.count)[..., None]
        shared = jnp.maximum(along, 0.0)
        of_unified = self.unified[..., None]
        value = jnp.where(of_unified, jnp.where(self.negative, -shared, shared), x)
        limit = jnp.float32(jnp.inf)
        if self.grid is None:
            value = base.in_dtype(value, self.dtype)
        else:
            value = self.grid.round(value, self.scale, self.dtype)
            limit = jnp.asarray(self.scale, jnp.float32) * self.grid.top
        value = lax.stop_gradient(kept(self.support, value))
        at_low, at_high = jnp.where(of_unified, along <= 0, x <= -limit), jnp.where(of_unified, along, x) >= limit
        shares = Shares(self.unified, self.support, self.negative, self.count, at_low, at_high)
        return self.blocking.weight(settle(x, value, shares)).astype(self.dtype)


@functools.partial(jax.jit, inline=True)
def chart(problem: Problem, w: Array) -> tuple[Array, SharedMagnitudes]:
    """Coordinates of the nearest point, and what builds members from coordinates."""
    point = solve(problem, w)
    build = SharedMagnitudes(
        unified=point.unified,
        support=point.support,
        negative=point.unified[..., None] & (point.value < 0),
        count=jnp.asarray(problem.counts()),
        scale=problem.scale,
        blocking=problem.blocking,
        grid=problem.grid,
        dtype=str(w.dtype),
    )
    return problem.blocking.weight(point.value), build
