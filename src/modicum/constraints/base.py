"""Numerics that every set shares: views of a weight, ranks, energies, distances.

A weight is looked at as `x` of shape `(o, i, e)`: `o` columns (one output feature each), `i` kernels in a
column, `e` elements in a kernel. A column's rows run kernel-major, so row `i * kh * kw + y * kw + x` of an HWIO
kernel is `x[o, i, y * kw + x]`; a dense kernel `(in, out)` has `e = 1`.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

Traceable = Any
"""A number that may be traced: a Python number, or a scalar array."""

View = Literal["elements", "rows", "kernels"]
"""How a set sees a weight: one column of elements; columns of rows; columns of kernels."""

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


def view_shape(shape: tuple[int, ...], view: View) -> tuple[int, int, int]:
    """`(o, i, e)` of a weight of that shape: HWIO or `(in, out)`, or any shape seen as elements."""
    if view == "elements":
        return 1, math.prod(shape), 1
    *window, inputs, outputs = shape
    taps = math.prod(window)
    return (outputs, inputs * taps, 1) if view == "rows" else (outputs, inputs, taps)


def as_view(w: Array, view: View) -> Array:
    """The weight as `(o, i, e)`; moves numbers only."""
    if view == "elements":
        return w.reshape(1, -1, 1)
    columns = jnp.transpose(w, (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))
    return columns.reshape(view_shape(w.shape, view))


def from_view(x: Array, shape: tuple[int, ...], view: View) -> Array:
    """Inverse of `as_view`."""
    if view == "elements":
        return x.reshape(shape)
    *window, inputs, outputs = shape
    columns = x.reshape(outputs, inputs, *window)
    return jnp.transpose(columns, (*range(2, columns.ndim), 1, 0))


def rank_mask(score: Float[Array, " *batch n"], k: Traceable) -> Bool[Array, " *batch n"]:
    """Marks the `k` largest entries along the last axis; ties go to the lower index.

    A stable double argsort gives every entry its own rank, so that exactly `min(k, n)` are marked where a
    threshold would mark more or fewer, and so that `k` may be traced.

    Example:
        >>> rank_mask(jnp.ones(4), 2).tolist()
        [True, True, False, False]
    """
    order = jnp.argsort(-score, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1, stable=True) < k


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
