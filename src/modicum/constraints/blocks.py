"""Block-based structured pruning: few columns in every block, few rows in the whole matrix.

A dense weight `(in, out)` is read as the matrix of `W x`: its rows are the outputs, its columns the inputs. Rows are
cut into strips and columns into blocks; in each block of a strip whole columns are zero, and so are whole rows of
the matrix. What is left of a strip is one dense matrix of the same width in every strip.
"""

import functools
from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modicum.constraints import base, blocks_format, direct
from modicum.constraints.base import Traceable
from modicum.constraints.blocks_format import Cut
from modicum.constraints.chart import Box
from modicum.constraints.levels import Levels
from modicum.core import Packed, check


class Choice(NamedTuple):
    """What stays: columns of each block, rows of each strip; pads of short ones may be marked, and mean nothing."""

    columns: Bool[Array, " strips blocks width"]
    rows: Bool[Array, " strips height"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockColumnRow(direct.Direct):
    """At most `columns` non-zero columns in every block of every strip, at most `rows` non-zero rows in all.

    The method has two steps: row-based column block pruning (in each block the columns of largest energy stay) and
    column-based row pruning (of the whole matrix the rows of largest remaining energy stay). The two kinds of group
    cross, so the result is not the nearest point. `sweeps` improves it by turns: the best columns for the kept
    rows, the best rows for the kept columns; neither step ever ends further away. One kind alone is exact.

    Args:
        columns: columns kept in each block, the same in all, so that work is balanced; at least 1 and at most the
            width of a block; a shorter last block keeps no more than it has. None keeps all. May be traced (`vmap`
            over rates), but not to encode.
        rows: rows kept of the whole matrix; None keeps all. May be traced, but not to encode.
        strips: pieces the rows (outputs) are cut into, each of `ceil(outputs / strips)` but for a shorter last one.
        blocks: pieces the columns (inputs) are cut into, likewise.
        sweeps: turns after the two steps; 0 is the method as published.
        levels: a grid for what is kept; set by `nest`.

    Example:
        >>> w = jnp.array([[3.0, 1.0], [1.0, 2.0], [0.0, 5.0]])
        >>> BlockColumnRow(1, strips=2, blocks=1).project(w).tolist()
        [[3.0, 0.0], [0.0, 0.0], [0.0, 5.0]]

    Reference:
        RTMobile (block-based structured pruning, BSPC); its two steps are `sweeps=0`, the turns are ours.
    """

    columns: Traceable | None
    rows: Traceable | None = None
    strips: int = field(kw_only=True, metadata={"static": True})
    blocks: int = field(kw_only=True, metadata={"static": True})
    sweeps: int = field(default=6, kw_only=True, metadata={"static": True})
    levels: Levels | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            if isinstance(getattr(self, name), Number | str):
                check.integer(1, **{name: getattr(self, name)})
        check.integer(1, strips=self.strips, blocks=self.blocks)
        check.integer(0, sweeps=self.sweeps)

    @property
    def exact(self) -> bool:
        """Whether `project` is the nearest point: where one kind of group is free, and no scale is searched."""
        return (self.rows is None or self.columns is None) and (self.levels is None or self.levels.exact)

    @property
    def layout(self) -> str:
        """Name of the packed format."""
        return "bspc" if self.levels is None else "bspc+levels"

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in the set.

        Raises:
            ValueError: naming what does not fit.
        """
        direct.check_size(shape)
        if len(shape) != 2:
            raise ValueError(f"w must be dense (in, out) to be cut into strips and blocks, got shape {tuple(shape)}")
        if self.columns is None and self.rows is None:
            raise ValueError("columns or rows must be a number, got None for both")
        for name, axis, pieces in (("blocks", shape[0], self.blocks), ("strips", shape[1], self.strips)):
            size = -(-axis // pieces)
            if -(-axis // size) < pieces:
                raise ValueError(
                    f"{name} must leave no piece empty: {axis} places in pieces of {size} make {-(-axis // size)}, "
                    f"got {pieces}"
                )
        cut = Cut.of(shape, self.strips, self.blocks)
        for name, value, most in (("columns", self.columns, cut.width), ("rows", self.rows, cut.outputs)):
            count = None if value is None else base.concrete_number(name, value)
            if count is not None and not 1 <= count <= most:
                where = "of a block" if name == "columns" else "of the matrix"
                raise ValueError(f"{name} must be from 1 to the {most} {name} {where} of shape {shape}, got {count}")
        direct.check_levels(self.levels, shape)

    def fit(self, w: Float[Array, " i o"]) -> "BlockColumnRow":
        """The same set with the scale of its levels frozen: searched on the weights that the blocks keep."""
        self.check(w.shape)
        if self.levels is None or self.levels.scale is not None:
            return self
        levels = self.levels
        scale = base.closer_scale(
            lambda x: jnp.asarray(levels.fit(x).scale),
            lambda scale: _place(replace(self, levels=replace(levels, scale=scale)), w),
            w,
            lax.stop_gradient(replace(self, levels=None).project(w)),
        )
        return replace(self, levels=replace(levels, scale=scale))

    def nested(self, others: list[Any]) -> "BlockColumnRow":
        """These blocks with levels; see `nest`."""
        return replace(self, levels=direct.only_levels("BlockColumnRow", self.levels, others))

    def relaxed(self, shape: tuple[int, ...], share: Traceable) -> "BlockColumnRow":
        """The set on the way there: counts `k + round((n - k) share)`, everything at 1, this set at 0.

        Args:
            shape: of the weight.
            share: from 0 to 1; may be traced.
        """
        cut = Cut.of(shape, self.strips, self.blocks)
        columns, rows = (
            None if k is None else base.relaxed_count(k, n, share)
            for k, n in ((self.columns, cut.width), (self.rows, cut.outputs))
        )
        return replace(self, columns=columns, rows=rows)

    def nearest(self, w: Array) -> Array:
        """The two steps and the sweeps."""
        return _place(self.fit(w), w)

    def chart(self, w: Float[Array, " i o"]) -> tuple[Float[Array, " i o"], Box]:
        """Free coordinates of the projected point: what the kept rows and columns share; see `Member.chart`."""
        self.ready(w)
        fitted = self.fit(w)
        support = _support(fitted, w)
        scale, grid = None, None
        limit = jnp.float32(jnp.inf)
        if fitted.levels is not None:
            scale, grid = fitted.levels.scale, direct.grid_of(fitted.levels)
            limit = jnp.asarray(scale, jnp.float32) * direct.grid_of(fitted.levels).top
        low, high = jnp.where(support, -limit, 0.0), jnp.where(support, limit, 0.0)
        box = Box(low=low, high=high, scale=scale, grid=grid, dtype=str(w.dtype))
        return _place(fitted, w).astype(jnp.float32), box

    def encode(self, w: Float[Array, " i o"]) -> Packed:
        """`project(w)` in block-based structured pruning compact form; see `blocks_format`.

        Raises:
            ValueError: if the shape does not fit, or a count is traced: it sizes the arrays.
        """
        self.ready(w)
        fitted = self.fit(w)
        counts = []
        for name, value in (("columns", self.columns), ("rows", self.rows)):
            count = None if value is None else base.known_integer(value)
            if value is not None and count is None:
                raise ValueError(f"{name} must be a concrete number to encode, because it sizes the packed arrays")
            counts.append(count)
        cut = Cut.of(w.shape, self.strips, self.blocks)
        return blocks_format.encode(_choose(fitted, w), w, cut, *counts, fitted.levels, self.layout)

    def unpack(self, packed: Packed) -> Array:
        """The weight of packed arrays."""
        return blocks_format.decode(packed)


@functools.partial(jax.jit, inline=True)
def _choose(blocks: BlockColumnRow, w: Array) -> Choice:
    """Columns and rows that stay."""
    cut = Cut.of(w.shape, blocks.strips, blocks.blocks)
    x = lax.stop_gradient(w.T.astype(jnp.float32))
    value = direct.on_grid(x, blocks.levels, w.dtype)
    factor = base.unit(x)
    a, b = x * factor, value * factor
    gain = cut.tiles(base.floored(b * (2 * a - b), value == 0))
    lost = cut.tiles(base.floored(jnp.square(a - b), value == x))
    dropped = cut.tiles(base.floored(jnp.square(a), x == 0))
    real_columns, real_rows = cut.real()

    def best_columns(rows: Array) -> Array:
        if blocks.columns is None:
            return jnp.ones((cut.strips, cut.blocks, cut.width), bool)
        energy = jnp.sum(jnp.where(rows[..., None, None], gain, 0.0), axis=1)
        return base.rank_mask(jnp.where(real_columns[None], energy, -1.0), blocks.columns)

    def best_rows(columns: Array) -> Array:
        if blocks.rows is None:
            return jnp.ones((cut.strips, cut.height), bool)
        energy = jnp.sum(jnp.where(columns[:, None], gain, 0.0), axis=(2, 3))
        return base.rank_mask(jnp.where(real_rows, energy, -1.0).reshape(-1), blocks.rows).reshape(energy.shape)

    def loss(choice: Choice) -> Array:
        stays = choice.columns[:, None] & choice.rows[..., None, None]
        return jnp.sum(jnp.where(stays, lost, dropped))

    def sweep(carry: tuple[Choice, Choice, Array], _: None) -> tuple[tuple[Choice, Choice, Array], None]:
        now, best, least = carry
        columns = best_columns(now.rows)
        now = Choice(columns, best_rows(columns))
        new = loss(now)
        best = jax.tree.map(lambda a, b: jnp.where(new < least, a, b), now, best)
        return (now, best, jnp.minimum(new, least)), None

    columns = best_columns(jnp.ones((cut.strips, cut.height), bool))
    start = Choice(columns, best_rows(columns))
    if blocks.sweeps == 0 or blocks.columns is None or blocks.rows is None:
        return start
    (_, best, _), _ = lax.scan(sweep, (start, start, loss(start)), length=blocks.sweeps)
    return best


def _support(blocks: BlockColumnRow, w: Array) -> Bool[Array, " i o"]:
    """Which elements of the weight may differ from zero."""
    cut = Cut.of(w.shape, blocks.strips, blocks.blocks)
    choice = _choose(blocks, w)
    return cut.matrix(choice.columns[:, None] & choice.rows[..., None, None]).T


@functools.partial(jax.jit, inline=True)
def _place(blocks: BlockColumnRow, w: Array) -> Array:
    """The projected point, in the dtype of `w`."""
    value = direct.on_grid(w.astype(jnp.float32), blocks.levels, w.dtype)
    return direct.kept(_support(blocks, w), value).astype(w.dtype)
