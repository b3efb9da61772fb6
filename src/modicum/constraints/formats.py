"""Packed form of a projected weight: kept values alone, bit-packed, with what says where they belong.

| part | array | holds |
|---|---|---|
| payload | `values` | kept weights: raw floats; floats without sign bit (`polarized`); levels, a sign and a code of `ceil(log2 l)` bits for `l` magnitudes; codes alone (`polarized+levels`) |
| payload | `signs` | one bit per fragment (of kept kernels only, where fragments lie inside kernels) |
| index | `filters` | kept filters: a list of places or a bitmap, whichever is smaller; all else is about these alone |
| index | `kept` | kept kernels of each filter, elements of the weight, input channels, or elements of each group: likewise |
| index | `patterns` | pattern of each kept kernel (once per group of filters), `ceil(log2 p)` bits each |
| metadata | `library` | one bit per position of each pattern |
| metadata | `scale` | one float32 |

A pattern with fewer positions than the largest leaves its last values unused, and so does a last group (`nofm`) of
fewer entries than it may keep.
"""  # noqa: E501

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.constraints import packing
from modicum.constraints.base import View, as_view, from_view, view_shape
from modicum.constraints.grid import Grid, dequantize
from modicum.constraints.payload import pack_values, unpack_values
from modicum.constraints.plan import Plan, fragment_rows, pattern_positions, pattern_table
from modicum.constraints.tree import Choice, element_signs, place, solve
from modicum.core import Packed


class _Layout(NamedTuple):
    """What `decode` must know besides the arrays."""

    view: View
    filters: int
    """Filters kept, 0 where all are."""
    k: int | None
    balanced: bool
    group: int
    patterns: int
    """Patterns in the library, 0 without one."""
    width: int
    """Values stored per kept kernel."""
    pattern_group: int
    fragment: int
    grid: Grid | None


class _Units(NamedTuple):
    """Where each kernel of `(o, i)` lies in the packed arrays."""

    kept: Array | None
    unit: Array
    """Its place in the list of all kept kernels."""
    pattern: Array
    """Its place in the list of patterns."""
    count: int
    patterns: int


def _layout(plan: Plan, outputs: int, kernels: int, taps: int) -> _Layout:
    if (plan.k is not None and plan.most is None) or (plan.filters is not None and plan.most_filters is None):
        raise ValueError("k must be a concrete number to encode, because it sizes the packed arrays, got a traced one")
    return _Layout(
        view=plan.view,
        filters=plan.most_filters or 0,
        k=plan.most if plan.along is None else min(plan.most or 0, kernels),
        balanced=plan.balanced,
        group=plan.group or outputs,
        patterns=plan.patterns,
        width=plan.width(taps),
        pattern_group=plan.pattern_group,
        fragment=plan.fragment or 0,
        grid=plan.grid,
    )


def _places(layout: _Layout, outputs: int, kernels: int) -> tuple[int, int, int]:
    """Rows, places per row and kept places per row of the `kept` index."""
    k = layout.k or 0
    return (-(-outputs // layout.group), kernels, k) if layout.balanced else (1, outputs * kernels, k)


def _units(layout: _Layout, kept: Array | None, slot: Array | None, outputs: int, kernels: int) -> _Units:
    """Addresses of all kernels, from what the `kept` index says: a mask and slots, `(rows, places)`."""
    columns = jnp.arange(outputs, dtype=jnp.int32)[:, None]
    if kept is not None and slot is not None and not layout.balanced:
        shape = (outputs, kernels)
        return _Units(kept.reshape(shape), slot.reshape(shape), slot.reshape(shape), layout.k or 0, layout.k or 0)
    per_filter, mask = kernels, None
    place = jnp.broadcast_to(jnp.arange(kernels, dtype=jnp.int32)[None], (outputs, kernels))
    if kept is not None and slot is not None:
        per_filter = layout.k or 0
        mask, place = (jnp.repeat(x, layout.group, axis=0)[:outputs] for x in (kept, slot))
    pattern = columns // layout.pattern_group * per_filter + place
    rows = -(-outputs // layout.pattern_group)
    return _Units(mask, columns * per_filter + place, pattern, outputs * per_filter, rows * per_filter)


def _kept_kernels(layout: _Layout, kept: Array | None, outputs: int, kernels: int) -> tuple[Array, Array]:
    """Flat kernel `o * i + i` of each kept kernel, and of the first kernel that uses each stored pattern."""
    if kept is None:
        every = jnp.arange(outputs * kernels, dtype=jnp.int32).reshape(outputs, kernels)
    elif layout.balanced:
        places = packing.kept_places(kept[:: layout.group], layout.k or 0)
        places = jnp.repeat(places, layout.group, axis=0)[:outputs]
        every = jnp.arange(outputs, dtype=jnp.int32)[:, None] * kernels + places
    else:
        every = packing.kept_places(kept.reshape(1, -1), layout.k or 0)
        return every.reshape(-1), every.reshape(-1)
    return every.reshape(-1), every[:: layout.pattern_group].reshape(-1)


@functools.partial(jax.jit, inline=True)
def encode(plan: Plan, w: Array) -> Packed:
    """The packed form of the nearest point of the set.

    Raises:
        ValueError: if a count is traced.
    """
    x = as_view(w, plan.view).astype(jnp.float32)
    outputs, kernels, taps = x.shape
    layout = _layout(plan, outputs, kernels, taps)
    choice = solve(plan, x, w.dtype)
    numbers = place(plan, x, choice, w.dtype)
    if plan.grid is not None:
        numbers = plan.grid.quantize(numbers, plan.scale)
    payload, index, metadata = {}, {}, {}
    if choice.filters is not None:
        index["filters"] = packing.pack_places(choice.filters[None], layout.filters)
        places = packing.kept_places(choice.filters[None], layout.filters)[0]
        numbers, choice = jax.tree.map(lambda each: each[places], (numbers, choice))
        outputs = layout.filters
    units, sharing = _kept_kernels(layout, choice.kept, outputs, kernels)
    kept = numbers.reshape(-1, taps)[units]
    if choice.kept is not None:
        rows, places, k = _places(layout, outputs, kernels)
        mask = choice.kept[:: layout.group] if layout.balanced else choice.kept
        index["kept"] = packing.pack_places(mask.reshape(rows, places), k)
    if choice.pattern is not None:
        ids = choice.pattern.reshape(-1)
        kept = jnp.take_along_axis(kept, pattern_positions(plan, taps)[ids[units]], axis=1, mode="clip")
        if layout.patterns > 1:
            index["patterns"] = packing.pack_bits(ids[sharing], packing.bit_width(layout.patterns))
        metadata["library"] = packing.pack_bits(pattern_table(plan, taps), 1)
    payload["values"] = pack_values(plan.grid, layout.fragment > 0, kept, w.dtype)
    if choice.negative is not None:
        _, span = fragment_rows(plan, kernels, taps)
        signs = choice.negative if span else choice.negative.reshape(outputs * kernels, -1)[units]
        payload["signs"] = packing.pack_bits(signs, 1)
    if plan.grid is not None:
        metadata["scale"] = jnp.asarray(plan.scale, jnp.float32)
    return Packed(
        payload=payload,
        index=index,
        metadata=metadata,
        layout=plan.layout,
        shape=w.shape,
        dtype=str(w.dtype),
        static=tuple(layout._asdict().items()),
    )


@functools.partial(jax.jit, inline=True)
def decode(packed: Packed) -> Array:
    """The weight that was encoded, bit for bit.

    Reads the packed arrays and `static` only, by gathers, shifts, comparisons and reshapes, so that it can be
    compiled into a module that stores its weights packed.
    """
    layout = _Layout(**dict(packed.static))
    every, kernels, taps = view_shape(packed.shape, layout.view)
    outputs = layout.filters or every
    shape = (outputs, kernels, taps)
    kept, slot = None, None
    if layout.k is not None:
        kept, slot = packing.unpack_places(packed.index["kept"], *_places(layout, outputs, kernels))
    units = _units(layout, kept, slot, outputs, kernels)
    count = units.count * layout.width
    values = unpack_values(layout.grid, layout.fragment > 0, packed.payload["values"], count, packed.dtype)
    mask = None if units.kept is None else jnp.broadcast_to(units.kept[..., None], shape)
    if layout.patterns:
        on, rank = _ranks(packed, layout, units, taps)
        mask = on if mask is None else on & mask
        values = values[units.unit[..., None] * layout.width + rank]
    elif mask is None:
        values = values.reshape(shape)
    else:
        values = values.reshape(-1, taps)[units.unit]
    if layout.fragment:
        values = jnp.where(_signs(packed, layout, units, shape), -values, values)
    mask = values != 0 if mask is None else mask & (values != 0)
    if layout.grid is not None:
        values = dequantize(values, packed.metadata["scale"], packed.dtype)
    weights = jnp.where(mask, values, 0.0)
    if layout.filters:
        present, slot = packing.unpack_places(packed.index["filters"], 1, every, layout.filters)
        weights = jnp.where(present[0][:, None, None], weights[slot[0]], 0.0)
    return from_view(weights, packed.shape, layout.view).astype(packed.dtype)


def _ranks(packed: Packed, layout: _Layout, units: _Units, taps: int) -> tuple[Array, Array]:
    """Whether an element is on its kernel's pattern, and which of the pattern's elements it is."""
    table = packing.unpack_bits(packed.metadata["library"], 1, layout.patterns * taps).reshape(-1, taps)
    rank = jnp.clip(jnp.cumsum(table, axis=1) - 1, 0, layout.width - 1)
    if layout.patterns == 1:
        pattern = jnp.zeros_like(units.pattern)
    else:
        bits = packing.bit_width(layout.patterns)
        pattern = packing.unpack_bits(packed.index["patterns"], bits, units.patterns)[units.pattern]
    return table[pattern] == 1, rank[pattern]


def _signs(packed: Packed, layout: _Layout, units: _Units, shape: tuple[int, int, int]) -> Array:
    """Whether each element is negative."""
    outputs, kernels, taps = shape
    plan = Plan(fragment=layout.fragment)
    rows, span = fragment_rows(plan, kernels, taps)
    if span:
        count = outputs * -(-kernels // span)
        negative = packing.unpack_bits(packed.payload["signs"], 1, count).reshape(outputs, -1) == 1
    else:
        parts = taps // rows
        stored = packing.unpack_bits(packed.payload["signs"], 1, units.count * parts).reshape(-1, parts)
        negative = stored[units.unit] == 1
    signs = element_signs(plan, Choice(None, None, negative), shape)
    assert signs is not None
    return signs
