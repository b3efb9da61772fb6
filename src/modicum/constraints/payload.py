"""The values of a packed weight: raw floats, floats without their sign bit, or codes of levels."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.constraints import packing
from modicum.constraints.grid import Grid


def pack_values(grid: Grid | None, unsigned: bool, numbers: Array, dtype: Any) -> Array:
    """Kept numbers as the payload.

    Args:
        grid: the grid they lie on, then given in units of its scale; None for floats of `dtype`.
        unsigned: whether signs are stored elsewhere.
        numbers: kept numbers.
        dtype: dtype of the weight.
    """
    if grid is not None:
        code = grid.encode(jnp.abs(numbers))
        if unsigned:
            return packing.pack_bits(code, grid.code_bits)
        sign = (numbers < 0).astype(jnp.uint32)
        return packing.pack_bits(code | (sign << grid.code_bits), grid.code_bits + 1)
    if not unsigned:
        return numbers.astype(dtype).reshape(-1)
    width = _float_bits(dtype)
    words = jax.lax.bitcast_convert_type(jnp.abs(numbers).astype(_stored(dtype)), f"uint{width}")
    return packing.pack_bits(words, width - 1)


def unpack_values(grid: Grid | None, unsigned: bool, packed: Array, count: int, dtype: Any) -> Array:
    """Inverse of `pack_values`, as `count` float32 numbers."""
    if grid is not None and unsigned:
        return grid.decode(packing.unpack_bits(packed, grid.code_bits, count))
    if grid is not None:
        words = packing.unpack_bits(packed, grid.code_bits + 1, count)
        magnitude = grid.decode(words & (2**grid.code_bits - 1))
        return jnp.where(words >> grid.code_bits == 1, -magnitude, magnitude)
    if not unsigned:
        return packed.astype(jnp.float32)
    width = _float_bits(dtype)
    words = packing.unpack_bits(packed, width - 1, count).astype(f"uint{width}")
    return jax.lax.bitcast_convert_type(words, _stored(dtype)).astype(jnp.float32)


def _stored(dtype: Any) -> Any:
    return jnp.float32 if jnp.finfo(dtype).bits > 32 else dtype


def _float_bits(dtype: Any) -> int:
    return jnp.finfo(_stored(dtype)).bits
