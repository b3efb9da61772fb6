"""Packed form of unified weights: one magnitude and the signs of each unified block, the values of free ones.

| part | array | holds |
|---|---|---|
| payload | `magnitudes` | one per unified block: floats without sign bit, or codes of levels |
| payload | `signs` | one bit per element of unified blocks |
| payload | `values` | elements of free blocks: floats or levels |
| index | `unified`, `pruned` | blocks of each class (absent if none or all): list or bitmap, whichever is smaller |
| index | `patterns` | pattern of each kernel of unified and free blocks, `ceil(log2 p)` bits each |
| metadata | `library` | one bit per position of each pattern |
| metadata | `scale` | one float32, with levels |

Blocks lie in the order of super-blocks. One that an edge cuts short leaves its last elements unused; with patterns, a
block has as many elements as its kernels keep.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from modicum.constraints import packing, payload
from modicum.constraints.grid import Grid, dequantize
from modicum.constraints.magnitudes import Problem, solve
from modicum.constraints.microblocks import Blocking
from modicum.core import Packed


class _Layout(NamedTuple):
    """What `decode` must know besides the arrays."""

    block: tuple[int, int, int]
    many: tuple[int, int, int] | None
    unified: int
    """Unified blocks of the layer."""
    pruned: int
    patterns: int
    """Patterns in the library, 0 without one."""
    width: int
    """Positions of a pattern."""
    grid: tuple[Any, ...]

    @property
    def levels(self) -> Grid | None:
        """The grid, if there is one."""
        return Grid(*self.grid) if self.grid else None


class _Sizes(NamedTuple):
    """How many there are of what."""

    places: Int[np.ndarray, " r"]
    """Blocks that exist, by their place among all of `(g, b)`."""
    kernels: int
    """Kernels of a block (positions without window)."""
    slots: int
    """Elements stored per block."""


def _sizes(layout: _Layout, blocking: Blocking) -> _Sizes:
    places = np.flatnonzero(blocking.real().any(axis=-1))
    kernels = math.prod(blocking.block[1:])
    return _Sizes(places, kernels, layout.width * kernels if layout.patterns else blocking.size)


def encode(problem: Problem, w: Array, layout: str) -> Packed:
    """The packed form of the nearest point.

    Args:
        problem: with known counts.
        w: weight.
        layout: name of the format.
    """
    described = _Layout(
        block=problem.blocking.block,
        many=problem.blocking.many,
        unified=int(np.sum(problem.unified)),
        pruned=int(np.sum(problem.pruned)),
        patterns=0 if problem.table is None else int(problem.table.shape[0]),
        width=problem.width,
        grid=() if problem.grid is None else tuple(problem.grid),
    )
    return _encode(problem, w, described, layout)


@functools.partial(jax.jit, static_argnames=("layout", "name"), inline=True)
def _encode(problem: Problem, w: Array, layout: _Layout, name: str) -> Packed:
    sizes = _sizes(layout, problem.blocking)
    point = solve(problem, w)
    x = point.value.reshape(-1, problem.blocking.size)[sizes.places]
    unified, pruned = (mask.reshape(-1)[sizes.places] for mask in (point.unified, point.pruned))
    free = ~unified & ~pruned
    blocks, parts, index, metadata = len(sizes.places), {}, {}, {}
    if point.pattern is not None:
        pattern = point.pattern.reshape(-1, sizes.kernels)[sizes.places]
        x = _on_patterns(problem, x, pattern)
        if layout.patterns > 1:
            stored = packing.kept_places(~pruned[None], blocks - layout.pruned)[0]
            index["patterns"] = packing.pack_bits(pattern[stored], packing.bit_width(layout.patterns))
        metadata["library"] = packing.pack_bits(jnp.asarray(problem.table), 1)
    for kind, mask, count in (("unified", unified, layout.unified), ("pruned", pruned, layout.pruned)):
        if 0 < count < blocks:
            index[kind] = packing.pack_places(mask[None], count)
    numbers = x if problem.grid is None else problem.grid.quantize(x, problem.scale)
    if layout.unified:
        chosen = numbers[packing.kept_places(unified[None], layout.unified)[0]]
        largest = jnp.max(jnp.abs(chosen), axis=1)
        parts["magnitudes"] = payload.pack_values(problem.grid, True, largest, w.dtype)
        parts["signs"] = packing.pack_bits(chosen < 0, 1)
    if blocks > layout.unified + layout.pruned:
        chosen = numbers[packing.kept_places(free[None], blocks - layout.unified - layout.pruned)[0]]
        parts["values"] = payload.pack_values(problem.grid, False, chosen, w.dtype)
    if problem.grid is not None:
        metadata["scale"] = jnp.asarray(problem.scale, jnp.float32)
    return Packed(
        payload=parts,
        index=index,
        metadata=metadata,
        layout=name,
        shape=w.shape,
        dtype=str(w.dtype),
        static=tuple(layout._asdict().items()),
    )


def _on_patterns(problem: Problem, x: Array, pattern: Array) -> Array:
    """Elements on the patterns of kernels, `(r, kernels * width)`."""
    rank = jnp.cumsum(jnp.asarray(problem.table), axis=1, dtype=jnp.int32)
    steps = jnp.arange(1, problem.width + 1, dtype=jnp.int32)
    positions = jax.vmap(lambda row: jnp.searchsorted(row, steps, method="scan_unrolled"))(rank)[pattern]
    by_kernel = jnp.moveaxis(x.reshape(len(x), -1, pattern.shape[1]), 1, 2)
    return jnp.take_along_axis(by_kernel, positions, axis=2).reshape(len(x), -1)


def _class(packed: Packed, kind: str, count: int, blocks: int) -> tuple[Bool[Array, " r"], Int[Array, " r"]]:
    """Which blocks are of a class, and the place of each among them."""
    if kind in packed.index:
        mask, slot = packing.unpack_places(packed.index[kind], 1, blocks, count)
        return mask[0], slot[0]
    return jnp.full((blocks,), count > 0), jnp.arange(blocks, dtype=jnp.int32)


@functools.partial(jax.jit, inline=True)
def decode(packed: Packed) -> Array:
    """The weight that was encoded, bit for bit, by gathers."""
    layout = _Layout(**dict(packed.static))
    blocking = Blocking(packed.shape, tuple(layout.block), layout.many and tuple(layout.many))
    sizes = _sizes(layout, blocking)
    blocks = len(sizes.places)
    unified, at_unified = _class(packed, "unified", layout.unified, blocks)
    pruned, _ = _class(packed, "pruned", layout.pruned, blocks)
    free = ~unified & ~pruned
    on, slot = _slots(packed, layout, sizes, pruned)
    x = jnp.zeros(slot.shape)
    if layout.unified:
        sizes_packed = payload.unpack_values(
            layout.levels, True, packed.payload["magnitudes"], layout.unified, packed.dtype
        )
        bits = packing.unpack_bits(packed.payload["signs"], 1, layout.unified * sizes.slots)
        shared = sizes_packed[at_unified][:, None]
        negative = bits[at_unified[:, None] * sizes.slots + slot] == 1
        x = jnp.where(unified[:, None], jnp.where(negative, -shared, shared), x)
    rest = blocks - layout.unified - layout.pruned
    if rest:
        values = payload.unpack_values(layout.levels, False, packed.payload["values"], rest * sizes.slots, packed.dtype)
        at_free = jnp.clip(jnp.cumsum(free, dtype=jnp.int32) - 1, 0, rest - 1)
        x = jnp.where(free[:, None], values[at_free[:, None] * sizes.slots + slot], x)
    if layout.grid:
        x = dequantize(x, packed.metadata["scale"], packed.dtype)
    x = jnp.where(on & ~pruned[:, None] & (x != 0), x, 0.0)
    everywhere = np.zeros(math.prod(blocking.real().shape[:2]), np.int32)
    everywhere[sizes.places] = np.arange(blocks)
    full = x[everywhere].reshape(blocking.real().shape)
    return blocking.weight(full).astype(packed.dtype)


def _slots(packed: Packed, layout: _Layout, sizes: _Sizes, pruned: Array) -> tuple[Array, Array]:
    """Whether each element of each block is on its pattern, and its place among the stored ones."""
    blocks, size = len(sizes.places), math.prod(layout.block)
    if not layout.patterns:
        every = jnp.arange(size, dtype=jnp.int32)[None]
        return jnp.ones((blocks, size), bool), jnp.broadcast_to(every, (blocks, size))
    taps = layout.block[0]
    table = packing.unpack_bits(packed.metadata["library"], 1, layout.patterns * taps).reshape(-1, taps)
    pattern = jnp.zeros((blocks, sizes.kernels), jnp.int32)
    if layout.patterns > 1:
        kept = blocks - layout.pruned
        bits = packing.bit_width(layout.patterns)
        stored = packing.unpack_bits(packed.index["patterns"], bits, kept * sizes.kernels).reshape(kept, -1)
        pattern = stored[jnp.clip(jnp.cumsum(~pruned, dtype=jnp.int32) - 1, 0, kept - 1)]
    rank = jnp.clip(jnp.cumsum(table, axis=1, dtype=jnp.int32) - 1, 0, layout.width - 1)
    kernel = jnp.arange(sizes.kernels, dtype=jnp.int32)[None, :, None] * layout.width
    on, slot = (jnp.moveaxis(each[pattern], 2, 1).reshape(blocks, size) for each in (table == 1, rank))
    place = jnp.moveaxis(jnp.broadcast_to(kernel, (blocks, sizes.kernels, taps)), 2, 1).reshape(blocks, size)
    return on, place + slot
