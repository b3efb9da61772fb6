"""Numbers of a few bits, packed into bytes; and lists of kept places. All of it traceable."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8

PlaceFormat = Literal["list", "bitmap"]


def bit_width(count: int) -> int:
    """Bits that tell `count` things apart: `ceil(log2(count))`."""
    return (count - 1).bit_length()


@functools.partial(jax.jit, static_argnames="bits", inline=True)
def pack_bits(values: Array, bits: int) -> UInt8[Array, " bytes"]:
    """Unsigned numbers below `2^bits` as a string of bits, least significant first, in `ceil(n bits / 8)` bytes.

    Example:
        >>> pack_bits(jnp.array([1, 2, 3]), 4).tolist()
        [33, 3]
    """
    flat = values.reshape(-1).astype(jnp.uint32)
    digits = ((flat[:, None] >> jnp.arange(bits, dtype=jnp.uint32)[None]) & 1).astype(jnp.uint8).reshape(-1)
    octets = jnp.pad(digits, (0, -digits.size % 8)).reshape(-1, 8)
    return (octets << jnp.arange(8, dtype=jnp.uint8)[None]).sum(axis=1, dtype=jnp.uint8)


@functools.partial(jax.jit, static_argnames=("bits", "count"), inline=True)
def unpack_bits(packed: UInt8[Array, " bytes"], bits: int, count: int) -> Int[Array, " n"]:
    """Inverse of `pack_bits`: `count` numbers as int32 (bit patterns where 32 bits are asked).

    Example:
        >>> unpack_bits(jnp.array([33, 3], jnp.uint8), bits=4, count=3).tolist()
        [1, 2, 3]
    """
    digits = (packed[:, None] >> jnp.arange(8, dtype=jnp.uint8)[None]) & 1
    words = digits.reshape(-1)[: count * bits].reshape(count, bits).astype(jnp.int32)
    return (words << jnp.arange(bits, dtype=jnp.int32)[None]).sum(axis=1, dtype=jnp.int32)


def place_format(rows: int, n: int, k: int) -> PlaceFormat:
    """The smaller way to say which `k` of `n` places are kept in each row."""
    return "list" if math.ceil(rows * k * bit_width(n) / 8) < math.ceil(rows * n / 8) else "bitmap"


def kept_places(mask: Bool[Array, " r n"], k: int) -> Int[Array, " r k"]:
    """The kept places of each row, ascending."""
    _, n = mask.shape
    return jnp.sort(jnp.where(mask, jnp.arange(n, dtype=jnp.int32)[None], n), axis=1)[:, :k]


@functools.partial(jax.jit, static_argnames="k", inline=True)
def pack_places(mask: Bool[Array, " r n"], k: int) -> UInt8[Array, " bytes"]:
    """Which places are kept, exactly `k` per row, in the smaller of two formats."""
    rows, n = mask.shape
    if place_format(rows, n, k) == "bitmap":
        return pack_bits(mask, 1)
    return pack_bits(kept_places(mask, k), bit_width(n))


@functools.partial(jax.jit, static_argnames=("rows", "n", "k"), inline=True)
def unpack_places(
    packed: UInt8[Array, " bytes"], rows: int, n: int, k: int
) -> tuple[Bool[Array, " r n"], Int[Array, " r n"]]:
    """Which places are kept, and the slot of each kept place among the `k` of its row; gathers only.

    The slot of a place that is not kept is some valid slot, without meaning.
    """
    if place_format(rows, n, k) == "bitmap":
        mask = unpack_bits(packed, 1, rows * n).reshape(rows, n)
        return mask == 1, jnp.clip(jnp.cumsum(mask, axis=1) - 1, 0, k - 1)
    places = unpack_bits(packed, bit_width(n), rows * k).reshape(rows, k)
    everywhere = jnp.arange(n, dtype=jnp.int32)
    search = jax.vmap(lambda row: jnp.searchsorted(row, everywhere, method="scan_unrolled"))
    slot = jnp.minimum(search(places), k - 1).astype(jnp.int32)
    return jnp.take_along_axis(places, slot, axis=1) == everywhere[None], slot
