"""Symmetric grids of levels with zero on them: whole multiples of one scale, all of them or a chosen few."""

import functools
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.constraints.base import Traceable, in_dtype, unit

Kind = Literal["fixed", "powers", "slices"]

KINDS: tuple[Kind, ...] = ("fixed", "powers", "slices")
"""Whole numbers of `bits` bits; zero and powers of two; whole numbers with few non-zero cells."""

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


class Grid(NamedTuple):
    """Which multiples of the scale are levels; a static description, hashable and JSON-able.

    Attributes:
        bits: width of a level, sign included.
        kind: one of `KINDS`.
        cell_bits: bits of a cell (`slices`).
        slices: cells of a level that may be non-zero (`slices`).
    """

    bits: int
    kind: Kind = "fixed"
    cell_bits: int = 2
    slices: int = 1

    @property
    def magnitudes(self) -> tuple[int, ...]:
        """All magnitudes in units of the scale, ascending from 0."""
        return _magnitudes(self)

    @property
    def top(self) -> int:
        """The largest magnitude."""
        return self.magnitudes[-1]

    @property
    def code_bits(self) -> int:
        """Bits of a magnitude's code, its place among `magnitudes`: `ceil(log2(len))`."""
        return (len(self.magnitudes) - 1).bit_length()

    def nearest(self, magnitude: Array) -> Array:
        """The nearest level of numbers not below 0, in units of the scale; halves go down (fixed: to the even)."""
        if self.kind == "fixed":
            return jnp.minimum(jnp.round(magnitude), self.top)
        # A step at each midpoint: one fused pass, where a search would hold every comparison in memory.
        level = jnp.zeros_like(magnitude)
        for low, high in itertools.pairwise(self.magnitudes):
            level = jnp.where(magnitude > (low + high) / 2, float(high), level)
        return level

    def quantize(self, x: Array, scale: Traceable) -> Array:
        """The nearest level of each number, in units of the scale, as float32."""
        if self.kind == "fixed":
            return quantize(x, scale, self.bits)
        level = self.nearest(jnp.abs(x) * (1 / jnp.asarray(scale, jnp.float32)))
        return jnp.where(x < 0, -level, level)

    def round(self, x: Array, scale: Traceable, dtype: Any) -> Array:
        """The nearest point of the grid, as a float32 number that `dtype` can hold."""
        return dequantize(self.quantize(x, scale), scale, dtype)

    def encode(self, magnitude: Array) -> Array:
        """Codes of magnitudes that are levels, below `2^code_bits`."""
        if self.kind == "fixed":
            return magnitude.astype(jnp.uint32)
        code = jnp.zeros(magnitude.shape, jnp.uint32)
        for number, level in enumerate(self.magnitudes):
            code = jnp.where(magnitude >= level, jnp.uint32(number), code)
        return code

    def decode(self, code: Array) -> Array:
        """The magnitudes of codes, as float32: a look-up in a table."""
        return code.astype(jnp.float32) if self.kind == "fixed" else jnp.array(self.magnitudes, jnp.float32)[code]


@functools.lru_cache(maxsize=64)
def _magnitudes(grid: Grid) -> tuple[int, ...]:
    every = range(top_level(grid.bits) + 1)
    if grid.kind == "fixed":
        return tuple(every)
    if grid.kind == "powers":
        return (0, *(2**power for power in range(top_level(grid.bits))))
    cells = range(0, grid.bits - 1, grid.cell_bits)

    def used(level: int) -> int:
        return sum((level >> cell) % 2**grid.cell_bits > 0 for cell in cells)

    return tuple(level for level in every if used(level) <= grid.slices)


def best_scale(
    w: Float[Array, " ..."], bits: int, kind: Kind = "fixed", cell_bits: int = 2, slices: int = 1
) -> Float[Array, ""]:
    """The scale of least squared error, by a one-dimensional search.

    Minimizes `sum((w - scale * q(w, scale))^2)` over a geometric grid, over two finer ones around its best, over
    a few steps of alternating least squares from there (`scale = sum(w q) / sum(q^2)`), and over `max|w| / t` for
    each level `t`. The error has many local minima, so the result is near the best, not proven to be it.

    The scale gets so few significant bits that every level is exact in the dtype of `w`. So a weight that lies on
    such a grid gives back a scale on which it lies, with an error of exactly 0: the last candidates see to it.

    Args:
        w: weights of any shape.
        bits: width of a level, sign included, from 2 to 8 (`powers`: to 5).
        kind: which multiples of the scale are levels, see `Levels`.
        cell_bits: bits of a cell (`slices`).
        slices: cells that may be non-zero (`slices`).

    Returns:
        A scalar above 0; 1 for a zero weight.

    Example:
        >>> float(best_scale(jnp.array([-1.5, 0.0, 0.5]), bits=3))
        0.5
    """
    return search_scale(w, Grid(bits, kind, cell_bits, slices))


@functools.partial(jax.jit, static_argnames="grid", inline=True)
def search_scale(w: Float[Array, " ..."], grid: Grid) -> Float[Array, ""]:
    """`best_scale` for a grid."""
    top = grid.top
    factor = unit(w.astype(jnp.float32))
    x = jnp.abs(w.astype(jnp.float32)) * factor
    largest = jnp.max(x)
    # A level t * 2^n takes the significant bits of an odd t, and those of the scale.
    wide = max(level.bit_length() - (level & -level).bit_length() + 1 for level in grid.magnitudes[1:])
    digits = max(min(jnp.finfo(w.dtype).nmant, 23) + 1 - wide, 1)

    def short(scale: Array) -> Array:
        return lax.reduce_precision(jnp.maximum(scale, 1e-30), exponent_bits=8, mantissa_bits=digits - 1)

    def levels(scale: Array) -> Array:
        return grid.nearest(x * (1 / scale))

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
    exact = short(largest / jnp.array(grid.magnitudes[1:], jnp.float32))
    return jnp.where(largest > 0, best(jnp.concatenate([exact, fine[None], steps])) / factor, 1.0)
