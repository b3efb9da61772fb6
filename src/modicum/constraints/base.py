"""Numerics that every set shares: views of a weight, ranks, energies, distances.

A weight is looked at as `x` of shape `(o, i, e)`: `o` columns (one output feature each), `i` kernels in a
column, `e` elements in a kernel. A column's rows run kernel-major, so row `i * kh * kw + y * kw + x` of an HWIO
kernel is `x[o, i, y * kw + x]`; a dense kernel `(in, out)` has `e = 1`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Traceable = Any
"""A number that may be traced: a Python number, or a scalar array."""

View = Literal["elements", "rows", "kernels"] | tuple[int, int]
"""How a set sees a weight: one column of elements; columns of rows; columns of kernels; or, given as `(axis, m)`, a
column for every `m` consecutive entries along an axis, the last one filled up with zeros."""

_SHORT = 32
"""Longest axis whose ranks are counted pair by pair."""

TINY = 1e-36
"""Least energy of a non-zero number. Squares underflow below 1e-19 of the largest weight; with a floor, losing a
non-zero weight is never free, so that a member of a set always projects onto itself."""


def is_concrete(value: Any) -> bool:
    """Whether a value is known now, not traced."""
    return not isinstance(value, jax.core.Tracer)


def concrete_number(name: str, value: Traceable) -> float | None:
    """The value as a Python number, or None where it is traced.

    Raises:
        ValueError: if it is an array with axes.
    """
    if np.ndim(value) != 0:
        raise ValueError(f"{name} must be one number (vmap over several), got shape {np.shape(value)}")
    return np.asarray(value).item() if is_concrete(value) else None


def known_integer(value: Traceable) -> int | None:
    """The value as an `int` where it is one whole number known while tracing, else None."""
    known = isinstance(value, int | np.integer | np.ndarray | jax.Array) and is_concrete(value)
    return int(value) if known and np.ndim(value) == 0 else None


def relaxed_count(k: Traceable, most: int, share: Traceable) -> Int[Array, ""]:
    """`k + round((most - k) share)` as int32: a count on its way from `most` (share 1) to `k` (share 0)."""
    k = jnp.asarray(k, jnp.int32)
    # the product is float32, whose rounding must not lead past `most`
    return jnp.minimum(k + jnp.round((most - k) * jnp.float32(share)).astype(jnp.int32), most)


def view_shape(shape: tuple[int, ...], view: View) -> tuple[int, int, int]:
    """`(o, i, e)` of a weight of that shape: HWIO or `(in, out)`; any shape for elements and groups along an axis."""
    if view == "elements":
        return 1, math.prod(shape), 1
    if isinstance(view, tuple):
        length = shape[view[0]]
        m = min(view[1], length)
        return math.prod(shape) // length * -(-length // m), m, 1
    *window, inputs, outputs = shape
    taps = math.prod(window)
    return (outputs, inputs * taps, 1) if view == "rows" else (outputs, inputs, taps)


def as_view(w: Array, view: View) -> Array:
    """The weight as `(o, i, e)`; moves numbers only, and fills up groups with zeros."""
    if view == "elements":
        return w.reshape(1, -1, 1)
    if isinstance(view, tuple):
        shape = view_shape(w.shape, view)
        lines = jnp.moveaxis(w, view[0], -1)
        pad = -lines.shape[-1] % shape[1]
        return jnp.pad(lines, [(0, 0)] * (w.ndim - 1) + [(0, pad)]).reshape(shape)
    columns = jnp.transpose(w, (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))
    return columns.reshape(view_shape(w.shape, view))


def from_view(x: Array, shape: tuple[int, ...], view: View) -> Array:
    """Inverse of `as_view`."""
    if view == "elements":
        return x.reshape(shape)
    if isinstance(view, tuple):
        axis = view[0] % len(shape)
        lines = x.reshape(*shape[:axis], *shape[axis + 1 :], -1)[..., : shape[axis]]
        return jnp.moveaxis(lines, -1, axis)
    *window, inputs, outputs = shape
    columns = x.reshape(outputs, inputs, *window)
    return jnp.transpose(columns, (*range(2, columns.ndim), 1, 0))


def rank_mask(score: Float[Array, " *batch n"], k: Traceable) -> Bool[Array, " *batch n"]:
    """Marks the `k` largest entries along the last axis; ties go to the lower index.

    Exactly `min(k, n)` are marked, where a threshold alone would mark more or fewer; `k` may be traced. Nothing is
    sorted, since sorts are slow on CPUs (`scripts/bench/cpu_operators.py`): a short axis is compared with itself, in a
    longer one the k-th largest number is found by halving (see `_halved`). XLA takes subnormal numbers (below 1.2e-38)
    for zeros there, and so they tie.

    Example:
        >>> rank_mask(jnp.ones(4), 2).tolist()
        [True, True, False, False]
    """
    score = lax.stop_gradient(score).astype(jnp.float32)
    size = score.shape[-1]
    if size > _SHORT:
        return _halved(_ordered_bits(score), k)
    mine, other = score[..., :, None], score[..., None, :]
    earlier = jnp.tri(size, k=-1, dtype=bool).reshape(*(1,) * (score.ndim - 1), size, size)
    before = (other > mine) | ((other == mine) & earlier)
    return jnp.sum(before, axis=-1, dtype=jnp.int32) < k


def _halved(value: Int[Array, " *batch n"], k: Traceable) -> Bool[Array, " *batch n"]:
    """Marks the `k` largest whole numbers: the k-th by halving their range, ties at it by halving the axis."""
    size = value.shape[-1]

    def count(marked: Array) -> Array:
        return jnp.sum(marked, axis=-1, keepdims=True, dtype=jnp.int32)

    def halve(total: Callable[[Array], Array], low: Array, high: Array) -> Array:
        """The largest `t` from `low` to `high` with `total(t) >= k`; any with `total(t) == k` will do."""

        def step(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low >> 1) + (high >> 1) + ((low | high) & 1)  # of the mean the ceiling, without overflow
            found = total(middle)
            low, high = jnp.where(found >= k, middle, low), jnp.where(found > k, high, middle - (found < k))
            return low, jnp.where(found == k, low, high)

        return lax.while_loop(lambda bounds: jnp.any(bounds[0] < bounds[1]), step, (low, high))[0]

    least, most = value.min(axis=-1, keepdims=True), value.max(axis=-1, keepdims=True)
    threshold = halve(lambda t: count(value >= t), least, most)
    above, tied = value > threshold, value == threshold
    place = lax.broadcasted_iota(jnp.int32, value.shape, value.ndim - 1)
    # of the tied ones all from the front up to `last`
    first = jnp.zeros_like(threshold)
    end = jnp.where(count(above) + count(tied) > k, size, 0)
    skipped = halve(lambda t: count(above) + count(tied & (place < size - t)), first, end)
    return above | (tied & (place < size - skipped))


def _ordered_bits(x: Float[Array, " *shape"]) -> Int[Array, " *shape"]:
    """float32 numbers as int32 ones in the same order; both zeros are one."""
    bits = lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def unit(x: Array) -> Array:
    """A power of two that brings the largest magnitude into `[1/2, 1)`, so that squares keep in range."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return jnp.ldexp(jnp.float32(1), jnp.clip(-exponent, -125, 125))


def floored(energy: Array, is_zero: Array) -> Array:
    """The energy, at least `TINY` unless the number it belongs to is exactly zero."""
    return jnp.where(is_zero, 0.0, jnp.maximum(energy, TINY))


def in_dtype(x: Array, dtype: Any) -> Array:
    """Rounds float32 numbers to those `dtype` can hold, still as float32.

    An explicit rounding: XLA may drop a float32 -> bfloat16 -> float32 pair of casts, and then a weight no longer
    equals its own projection.
    """
    info = jnp.finfo(dtype)
    return x if info.nmant >= 23 else lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)


@functools.partial(jax.jit, inline=True)
def relative_distance(w: Array, p: Array) -> Array:
    """`||w - p|| / ||w||`, exactly 0 where the two are equal; 0 for a zero weight.

    Equality is tested first: under `jit` XLA may contract `w - q * scale` to one fused operation that sees the
    unrounded product, and so a small difference where there is none.
    """
    w, p = w.astype(jnp.float32), p.astype(jnp.float32)
    scale = unit(w)
    difference = jnp.where(w == p, 0.0, w * scale - p * scale)
    norm = jnp.sqrt(jnp.sum(jnp.square(w * scale)))
    return jnp.sqrt(jnp.sum(jnp.square(difference))) / jnp.where(norm > 0, norm, 1.0)


@functools.partial(jax.jit, inline=True)
def kept_energy(w: Array, p: Array) -> Array:
    """`||w||^2 - ||w - p||^2`, as `sum(p (2 w - p))`, which cancels nothing where `p` equals `w` or 0."""
    w, p = w.astype(jnp.float32), p.astype(jnp.float32)
    scale = unit(w)
    a, b = w * scale, p * scale
    return jnp.sum(b * (2 * a - b)) / scale / scale


def closer_scale(
    search: Callable[[Array], Array], project: Callable[[Array], Array], w: Array, start: Array
) -> Float[Array, ""]:
    """The scale of levels under other constraints: that of the weights they keep.

    It is searched once on the projection without levels, and once more on the weights of the support chosen with that
    scale; the one that leads closer wins.

    Args:
        search: from weights to a scale.
        project: from a scale to the projection of `w`.
        w: the weight.
        start: its projection without levels.
    """
    first = search(start)
    second = search(jnp.where(project(first) != 0, w, jnp.zeros_like(w)))
    far = [relative_distance(w, project(scale)) for scale in (first, second)]
    return jnp.where(far[1] < far[0], second, first)
