"""Packed form of block-pruned matrices: a dense matrix per strip, and the columns and rows it stands for.

| part | array | holds |
|---|---|---|
| payload | `values` | kept rows, ascending; of each the kept columns of its strip, ascending; floats or levels |
| index | `columns` | kept columns of each block of each strip: a list of places or a bitmap, whichever is smaller |
| index | `rows` | kept rows of the matrix, likewise |
| metadata | `scale` | one float32, with levels |

The arrays are those of BSPC but for two: every block keeps the same number of columns, so strides and filter offsets
follow from the shape; and rows stay in their order, so that none is stored.

Reference:
    RTMobile: block-based structured pruning compact format.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from modicum.constraints import direct, packing
from modicum.constraints.levels import Levels
from modicum.core import Packed


class Cut(NamedTuple):
    """How the matrix `(outputs, inputs)` is cut; pieces at the end may be shorter."""

    outputs: int
    inputs: int
    strips: int
    height: int
    """Rows of a strip."""
    blocks: int
    width: int
    """Columns of a block."""

    @classmethod
    def of(cls, shape: tuple[int, ...], strips: int, blocks: int) -> "Cut":
        """The cut of a weight `(inputs, outputs)`."""
        inputs, outputs = shape
        return cls(outputs, inputs, strips, -(-outputs // strips), blocks, -(-inputs // blocks))

    def tiles(self, x: Shaped[Array, " o i"]) -> Shaped[Array, " strips height blocks width"]:
        """The matrix by strips and blocks, padded with zeros."""
        pads = (self.strips * self.height - self.outputs, self.blocks * self.width - self.inputs)
        return jnp.pad(x, [(0, pad) for pad in pads]).reshape(self.strips, self.height, self.blocks, self.width)

    def matrix(self, tiles: Shaped[Array, " strips height blocks width"]) -> Shaped[Array, " o i"]:
        """Inverse of `tiles`."""
        full = tiles.reshape(self.strips * self.height, self.blocks * self.width)
        return full[: self.outputs, : self.inputs]

    def real(self) -> tuple[Bool[np.ndarray, " blocks width"], Bool[np.ndarray, " strips height"]]:
        """Which columns and rows are no pads."""
        columns = np.arange(self.blocks * self.width).reshape(self.blocks, self.width) < self.inputs
        return columns, np.arange(self.strips * self.height).reshape(self.strips, self.height) < self.outputs

    def kept_width(self, columns: int | None) -> int:
        """Columns that a strip keeps over all its blocks; only the last block may have fewer than `columns`."""
        if columns is None:
            return self.inputs
        last = self.inputs - (self.blocks - 1) * self.width
        return (self.blocks - 1) * columns + min(columns, last)


@functools.partial(jax.jit, static_argnames=("cut", "columns", "rows", "layout"), inline=True)
def encode(
    choice: Any, w: Array, cut: Cut, columns: int | None, rows: int | None, levels: Levels | None, layout: str
) -> Packed:
    """The packed form of what `choice` keeps.

    Args:
        choice: kept `columns` and `rows`, exactly as many as said.
        w: weight `(in, out)`.
        cut: strips and blocks.
        columns: columns kept per block, None for all.
        rows: rows kept, None for all.
        levels: grid with its scale.
        layout: name of the format.
    """
    every = cut.kept_width(columns)
    index = {}
    at = jnp.broadcast_to(jnp.arange(cut.inputs)[None], (cut.strips, cut.inputs))
    if columns is not None:
        mask = choice.columns.reshape(-1, cut.width)
        index["columns"] = packing.pack_places(mask, columns)
        places = packing.kept_places(mask, columns).reshape(cut.strips, cut.blocks, columns)
        starts = jnp.arange(cut.blocks)[None, :, None] * cut.width
        at = (places + starts).reshape(cut.strips, -1)[:, :every]
    kept = jnp.arange(cut.outputs)
    if rows is not None:
        mask = choice.rows.reshape(1, -1)[:, : cut.outputs]
        index["rows"] = packing.pack_places(mask, rows)
        kept = packing.kept_places(mask, rows)[0]
    matrix = direct.on_grid(w.T.astype(jnp.float32), levels, w.dtype)
    values = matrix[kept[:, None], at[kept // cut.height]]
    values = jnp.where(values == 0, 0.0, values)
    static = {"columns": columns or 0, "rows": rows or 0, "strips": cut.strips, "blocks": cut.blocks}
    return Packed(
        payload={"values": direct.pack_values(values, levels, w.dtype)},
        index=index,
        metadata=direct.scale_metadata(levels),
        layout=layout,
        shape=w.shape,
        dtype=str(w.dtype),
        static=(*static.items(), direct.static_grid(levels)),
    )


@functools.partial(jax.jit, inline=True)
def decode(packed: Packed) -> Array:
    """The weight that was encoded, bit for bit, by gathers."""
    static = dict(packed.static)
    cut = Cut.of(packed.shape, static["strips"], static["blocks"])
    columns, rows = static["columns"], static["rows"]
    every = cut.kept_width(columns or None)
    stays = jnp.ones((cut.outputs, cut.inputs), bool)
    slot = jnp.broadcast_to(jnp.arange(cut.inputs)[None], (cut.strips, cut.inputs))
    row = jnp.arange(cut.outputs)
    strip = row // cut.height
    if columns:
        mask, place = packing.unpack_places(packed.index["columns"], cut.strips * cut.blocks, cut.width, columns)
        place = place.reshape(cut.strips, cut.blocks, -1) + jnp.arange(cut.blocks)[None, :, None] * columns
        slot = jnp.minimum(place.reshape(cut.strips, -1)[:, : cut.inputs], every - 1)
        stays = mask.reshape(cut.strips, -1)[:, : cut.inputs][strip]
    if rows:
        mask, place = packing.unpack_places(packed.index["rows"], 1, cut.outputs, rows)
        stays, row = stays & mask[0][:, None], place[0]
    count = (rows or cut.outputs) * every
    values = direct.unpack_values(packed, "values", count)[row[:, None] * every + slot[strip]]
    return jnp.where(stays, values, 0.0).T.astype(packed.dtype)
