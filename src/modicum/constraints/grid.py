"""Symmetric fixed point: whole multiples of one scale, zero among them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable, in_dtype, unit

_GRID_STEPS = 72  # scales tried, 1/8 octave apart: from twice the widest useful one down to 1/256 of it
_FINE_STEPS = 65  # scales tried within 1/8 octave of the best of these, then within 1/128
_REFINEMENTS = 4


def top_level(bits: int) -> int:
    """Largest level of a sign-magnitude number: `2^(bits-1) - 1`."""
    return 2 ** (bits - 1) - 1


def quantize(x: Array, scale: Traceable, bits: int) -> Array:
    """The nearest level of each number, a whole number from `-top` to `top`, as float32.

    Multiplies by the reciprocal, as XLA would under `jit` where the scale is a constant: eager and jitted agree.
    """
    top = top_level(bits)
    return jnp.clip(jnp.round(x * (1 / jnp.asarray(scale, jnp.float32))), -top, top)


def dequantize(q: Array, scale: Traceable, dtype: Any) -> Array:
    """`q * scale` as a float32 number that `dtype` can hold; zeros are positive."""
    value = in_dtype(q.astype(jnp.float32) * jnp.asarray(scale, jnp.float32), dtype)
    return jnp.where(q == 0, 0.0, value)


@functools.partial(jax.jit, static_argnames="bits", inline=True)
def best_scale(w: Float[Array, " ..."], bits: int) -> Float[Array, ""]:
    """The scale of least squared error, by a one-dimensional search.

    Minimizes `sum((w - scale * q(w, scale))^2)` over a geometric grid, over two finer ones around its best, over
    a few steps of alternating least squares from there (`scale = sum(w q) / sum(q^2)`), and over `max|w| / t` for
    each level `t`. The error has many local minima, so the result is near the best, not proven to be it.

    The scale gets so few significant bits that every level is exact in the dtype of `w`. So a weight that lies on
    such a grid gives back a scale on which it lies, with an error of exactly 0: the last candidates see to it.

    Args:
        w: weights of any shape.
        bits: width of a level, sign included, from 2 to 8.

    Returns:
        A scalar above 0; 1 for a zero weight.

    Example:
        >>> float(best_scale(jnp.array([-1.5, 0.0, 0.5]), bits=3))
        0.5
    """
    top = top_level(bits)
    factor = unit(w.astype(jnp.float32))
    x = jnp.abs(w.astype(jnp.float32)) * factor
    largest = jnp.max(x)
    digits = max(min(jnp.finfo(w.dtype).nmant, 23) + 1 - (bits - 1), 1)

    def short(scale: Array) -> Array:
        return lax.reduce_precision(jnp.maximum(scale, 1e-30), exponent_bits=8, mantissa_bits=digits - 1)

    def levels(scale: Array) -> Array:
        return jnp.minimum(jnp.round(x * (1 / scale)), top)

    def errors(scales: Array) -> Array:
        return lax.map(lambda scale: jnp.sum(jnp.square(x - levels(scale) * scale)), scales)

    def best(scales: Array) -> Array:
        return scales[jnp.argmin(errors(scales))]

    def around(scale: Array, octaves: float) -> Array:
        return best(short(scale * jnp.exp2(jnp.linspace(-octaves, octaves, _FINE_STEPS))))

    def refined(scale: Array, _: None) -> tuple[Array, Array]:
        q = levels(scale)
        new = short(jnp.sum(x * q) / jnp.maximum(jnp.sum(jnp.square(q)), 1.0))
        return new, new

    octaves = (8.0 - jnp.arange(_GRID_STEPS, dtype=jnp.float32)) / 8
    coarse = best(short(largest / top * jnp.exp2(octaves)))
    fine = around(around(coarse, 1 / 8), 1 / 128)
    _, steps = lax.scan(refined, fine, length=_REFINEMENTS)
    exact = short(largest / jnp.arange(1, top + 1, dtype=jnp.float32))
    return jnp.where(largest > 0, best(jnp.concatenate([exact, fine[None], steps])) / factor, 1.0)
