"""Numbers that sum exactly: dyadic grids, and small codes packed into bytes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from modicum.core import check


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded(values: Array, bits: int) -> Array:
    return jnp.round(values * 2.0**bits) * 2.0**-bits


@_rounded.defjvp
def _rounded_jvp(bits: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _rounded(primals[0], bits), tangents[0]


def dyadic(values: Float[Array, " *shape"], bits: int) -> Float[Array, " *shape"]:
    """The nearest multiples of `2**-bits`, straight through for gradients.

    Sums of whole spikes times such weights are exact in float32, in any order, while they stay below
    `2**(24 - bits)`: what a sweep back computes again is then, bit for bit, what the forward pass computed.

    Args:
        values: weights, of any shape.
        bits: fraction bits, from 0 to 23.

    Returns:
        `round(values * 2**bits) / 2**bits` (half to even); its tangent is that of `values`.

    Raises:
        ValueError: if `bits` is out of range.

    Example:
        >>> dyadic(jnp.array([0.3, -0.9]), 2)
        Array([ 0.25, -1.  ], dtype=float32)
    """
    check.integer(0, 23, bits=bits)
    return _rounded(values, bits)


def inside(values: Float[Array, " *shape"], low: float, high: float) -> Bool[Array, " *shape"]:
    """Where `clipped` lets gradients through: from `low` to `high`, both included."""
    return (values >= low) & (values <= high)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def clipped(values: Float[Array, " *shape"], low: float, high: float, bits: int) -> Float[Array, " *shape"]:
    """Currents clipped to `[low, high]`, then rounded to multiples of `2**-bits`; straight through inside the range."""
    return jnp.round(jnp.clip(values, low, high) * 2.0**bits) * 2.0**-bits


@clipped.defjvp
def _clipped_jvp(
    low: float, high: float, bits: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (values,), (tangent,) = primals, tangents
    return clipped(values, low, high, bits), jnp.where(inside(values, low, high), tangent, jnp.zeros_like(tangent))


def _codes_per_byte(bits: int) -> int:
    check.one_of((1, 2, 4, 8), bits=bits)
    return 8 // bits


def floating(values: Array) -> Array:
    """The values as they are where they are floating, else as float32: what comes in may be whole counts."""
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)


def pack(codes: UInt8[Array, " *b n"], bits: int) -> UInt8[Array, " *b m"]:
    """Codes of 1, 2, 4 or 8 bits side by side in bytes, along the last axis, the first in the lowest bits.

    The other axes stay, so that an array sharded over its batch stays so.

    Args:
        codes: numbers below `2**bits`.
        bits: bits of a code.

    Returns:
        `ceil(n bits / 8)` bytes for each row.

    Example:
        >>> pack(jnp.array([3, 0, 1, 2, 1], jnp.uint8), 2)
        Array([147,   1], dtype=uint8)
    """
    each = _codes_per_byte(bits)
    if each == 1:
        return codes
    *batch, length = codes.shape
    missing = -length % each
    padded = jnp.pad(codes, [(0, 0)] * len(batch) + [(0, missing)]) if missing else codes
    groups = padded.reshape(*batch, (length + missing) // each, each)
    packed = groups[..., 0]
    for place in range(1, each):
        packed = packed | (groups[..., place] << (bits * place))
    return packed


def noted(note: Any, bits: int) -> Any:
    """What a backward pass is to read, packed where it is a code of `bits` bits; as it is where `bits` is 0."""
    return pack(note, bits) if bits else note


def recalled(note: Any, bits: int, length: int) -> Any:
    """The inverse of `noted`, of rows of `length` codes."""
    return unpack(note, bits, length) if bits else note


def unpack(packed: UInt8[Array, " *b m"], bits: int, length: int) -> UInt8[Array, " *b n"]:
    """The codes that `pack` packed.

    Args:
        packed: bytes.
        bits: bits of a code.
        length: codes in a row.
    """
    each = _codes_per_byte(bits)
    if each == 1:
        return packed
    places = [(packed >> (bits * place)) & (2**bits - 1) for place in range(each)]
    return jnp.stack(places, axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
