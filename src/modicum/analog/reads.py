"""Reads of a chip through its converters, as whole numbers: by table, or one by one.

`table`: a fragment of `m` rows sees one of `2^m` patterns of input bits, so its converted, shifted and signed
contribution is a table row, and the product is gathered and added. `direct`: every read is computed; for large
fragments and few vectors. Sums are int32 limbs of the input bits, cut by `limb_bits` so that none can overflow.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modicum.analog.chip import Chip, excess
from modicum.analog.converters import convert, largest_fragment, limb_bits, split_fragments
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key

TABLE_ROWS = 9
"""Most rows that share a table: 512 patterns."""
_UNROLLED_ROWS = 16
_MANTISSA = 24


def _streams(codes: Array, spec: CrossbarSpec) -> list[Array]:
    """The magnitudes streamed in each pass."""
    return [codes] if spec.input_format == "unsigned" else [jnp.maximum(codes, 0), jnp.maximum(-codes, 0)]


def table_product(chip: Chip, codes: Array, spec: CrossbarSpec) -> Array:
    """Gather and add: one table per group of fragments that together have at most `TABLE_ROWS` rows."""

    def table(part: tuple[Array, Array, Array]) -> Array:
        current, sign, flipped = part
        # without the barrier XLA computes the table's entries anew for every gather
        return lax.optimization_barrier(_table(current, sign, flipped, spec))

    return _gathered(_grouped(chip, spec), table, codes, spec)


def tables(chip: Chip, spec: CrossbarSpec) -> Int[Array, " g t n"]:
    """All tables of a chip: what each pattern of a group's input bits adds to each column."""
    return lax.map(lambda part: _table(part[0], part[1], part[2], spec), _grouped(chip, spec))


def gather_product(built: Int[Array, " g t n"], codes: Array, spec: CrossbarSpec) -> Array:
    """`table_product` of the chip whose `tables` were built before."""
    return _gathered((built,), lambda part: part[0], codes, spec)


def _gathered(parts: Any, table_of: Callable[[Any], Array], codes: Array, spec: CrossbarSpec) -> Array:
    vectors, rows = codes.shape
    tall = spec.fragment * (TABLE_ROWS // spec.fragment)
    groups, width = -(-rows // tall), limb_bits(spec, rows)
    padded = jnp.pad(codes, ((0, 0), (0, groups * tall - rows)))
    patterns = []
    for stream in _streams(padded, spec):
        cut = stream.reshape(vectors, groups, tall)
        for bit in range(spec.input_bits):
            bits = [((cut[:, :, row] >> bit) & 1) << row for row in range(tall)]
            patterns.append(sum(bits[1:], bits[0]))
    limbs = -(-spec.input_bits // width)

    def step(sums: list[Array], part: tuple[Any, Array]) -> tuple[list[Array], None]:
        own, pattern = part
        table = table_of(own)
        sums = list(sums)
        for number in range(spec.passes * spec.input_bits):
            negative, bit = divmod(number, spec.input_bits)
            place, shift = divmod(bit, width)
            gathered = table.at[pattern[number]].get(mode="promise_in_bounds").astype(jnp.int32) << shift
            sums[place] = sums[place] - gathered if negative else sums[place] + gathered
        return sums, None

    zeros = [jnp.zeros((vectors, parts[0].shape[-1]), jnp.int32)] * limbs
    sums, _ = lax.scan(step, zeros, (parts, jnp.moveaxis(jnp.stack(patterns), 2, 0)))
    return jnp.stack(sums)


def _grouped(chip: Chip, spec: CrossbarSpec) -> tuple[Array, Array, Array]:
    """Currents, signs and flips with the groups of fragments in front, `(g, ..., joined, ...)`."""
    joined = TABLE_ROWS // spec.fragment
    groups = -(-chip.sign.shape[1] // joined)

    def cut(array: Array, axis: int) -> Array:
        missing = groups * joined - array.shape[axis]
        widths = [(0, missing if other == axis else 0) for other in range(array.ndim)]
        padded = jnp.pad(array, widths)
        shape = (*array.shape[:axis], groups, joined, *array.shape[axis + 1 :])
        return jnp.moveaxis(padded.reshape(shape), axis, 0)

    return cut(excess(chip, spec), 2), cut(chip.sign, 1), cut(chip.flipped, 2)


def _table(current: Array, sign: Array, flipped: Array, spec: CrossbarSpec) -> Array:
    """What every pattern of input bits adds to every column, `(2 ** rows, columns)`.

    Args:
        current: `(p, c, j, m, n)` currents of the rows of `j` fragments.
        sign: `(p, j, n)`.
        flipped: `(p, c, j, n)`.
        spec: crossbar.
    """
    low = _subset_sums(current[..., : spec.fragment // 2, :])[..., None, :, :]
    high = _subset_sums(current[..., spec.fragment // 2 :, :])[..., :, None, :]
    active = lax.population_count(jnp.arange(2**spec.fragment, dtype=jnp.int32))
    tables = _combine(
        lambda p, c: high[p, c] + low[p, c],
        active.reshape(1, high.shape[-3], low.shape[-2], 1),
        sign[:, :, None, None, :],
        flipped[:, :, :, None, None, :],
        spec,
    ).reshape(sign.shape[1], -1, sign.shape[2])
    whole = tables[0]
    if tables.shape[0] > 1:
        tables = lax.optimization_barrier(tables)
        whole = tables[0]
    for table in tables[1:]:
        whole = (table[:, None, :] + whole[None, :, :]).reshape(-1, whole.shape[-1])
    small = tables.shape[0] * largest_fragment(spec) < 2**15
    return whole.astype(jnp.int16) if small else whole


def _subset_sums(current: Array) -> Array:
    """Sums over every subset of rows, `(..., m, n)` to `(..., 2 ** m, n)`; bit `i` of the place stands for row `i`."""
    sums = jnp.zeros_like(current, shape=(*current.shape[:-2], 1, current.shape[-1]))
    for row in range(current.shape[-2]):
        sums = jnp.concatenate([sums, sums + current[..., row : row + 1, :]], axis=-2)
    return sums


def _combine(
    current: Callable[[int, int], Array], active: Array, sign: Array, flipped: Array, spec: CrossbarSpec
) -> Array:
    """Convert, undo flips, shift and add cells, take the offset off, sign and add polarities.

    Args:
        current: `(polarity, cell)` to the currents of reads, `(*s)`.
        active: how many inputs were on.
        sign: `(p, *s)`.
        flipped: `(p, c, *s)`; all three up to axes of size 1.
        spec: crossbar.
    """
    total = jnp.zeros((), jnp.int32)
    for polarity in range(spec.polarities):
        magnitude = jnp.zeros((), jnp.int32)
        for cell in range(spec.cells):
            value = convert(current(polarity, cell), spec)
            if spec.flips:
                value = jnp.where(flipped[polarity, cell], spec.cell_levels * active - value, value)
            magnitude = magnitude + (value << (cell * spec.cell_bits))
        if spec.bias:
            # the unit column counts active inputs; counted without error, like the inputs of flipped columns
            magnitude = magnitude - spec.bias * active
        total = total + sign[polarity].astype(jnp.int32) * magnitude
    return total


def needed(key: Key | None) -> Key:
    """The key, where reads are noisy."""
    if key is None:
        raise ValueError("key must be a PRNG key where reads are noisy (read_noise above 0), got None")
    return key


def read_noise(
    key: Key, fragment: Int[Array, ""] | int, bit: Int[Array, ""] | int, vectors: int, columns: int, spec: CrossbarSpec
) -> Float[Array, " s p c b n"]:
    """The noise of one fragment's reads of one input bit, in converter steps: independent normal draws.

    Args:
        key: of the call; each fragment and bit folds its number in.
        fragment: its number.
        bit: its place, 0 for the lowest.
        vectors: how many input vectors are read.
        columns: outputs.
        spec: crossbar; reads `read_noise`.

    Returns:
        Of every pass, polarity, cell, vector and column.
    """
    shape = (spec.passes, spec.polarities, spec.cells, vectors, columns)
    own = jax.random.fold_in(jax.random.fold_in(key, fragment), bit)
    # drawn flat: XLA compiles that faster than a draw of five axes
    return spec.read_noise * jax.random.normal(own, (math.prod(shape),), jnp.float32).reshape(shape)


def pack_bits(spec: CrossbarSpec) -> int:
    """Bits of one field when cells are packed: enough for the current of a whole fragment of full cells."""
    return (spec.fragment * spec.cell_levels).bit_length()


def pack(chip: Chip, spec: CrossbarSpec) -> Float[Array, " f m w"]:
    """Cells at whole levels, as many to a float32 as its 24 bits hold sums of, for `packed_product`."""
    cells = jnp.round(excess(chip, spec)).astype(jnp.int32)
    polarities, each, fragments, height, columns = cells.shape
    fields = max(_MANTISSA // pack_bits(spec), 1)
    words = -(-polarities * each // fields)
    flat = cells.reshape(polarities * each, fragments, height, columns)
    flat = jnp.pad(flat, ((0, words * fields - polarities * each), (0, 0), (0, 0), (0, 0)))
    shifts = (pack_bits(spec) * jnp.arange(fields, dtype=jnp.int32)).reshape(1, -1, 1, 1, 1)
    word = jnp.sum(flat.reshape(words, fields, fragments, height, columns) << shifts, axis=1)
    return jnp.moveaxis(word, 0, 2).reshape(fragments, height, words * columns).astype(jnp.float32)


def packed_product(packed: Float[Array, " f m w"], chip: Chip, codes: Array, spec: CrossbarSpec) -> Array:
    """Every read of a chip at whole levels, several cells of a weight in one float32 matrix product.

    Exact: a field never overflows into the next, and no product exceeds 24 bits.
    """
    width, columns = limb_bits(spec, codes.shape[-1]), chip.sign.shape[-1]
    bits, fields = pack_bits(spec), max(_MANTISSA // pack_bits(spec), 1)
    streams = [jnp.moveaxis(split_fragments(stream.T, spec.fragment), 2, 1) for stream in _streams(codes, spec)]
    sign, flipped = jnp.moveaxis(chip.sign, 1, 0), jnp.moveaxis(chip.flipped, 2, 0)

    def fragment_step(sums: list[Array], part: tuple[Array, ...]) -> tuple[list[Array], None]:
        inputs, words, own_sign, own_flipped = part
        sums = list(sums)
        for number in range(spec.passes * spec.input_bits):
            negative, bit = divmod(number, spec.input_bits)
            place, shift = divmod(bit, width)
            on = (inputs[negative] >> bit) & 1
            total = jnp.matmul(on.astype(jnp.float32), words, precision=lax.Precision.HIGHEST).astype(jnp.int32)
            total = total.reshape(codes.shape[0], -1, columns)

            def field(polarity: int, cell: int, total: Array = total) -> Array:
                word, low = divmod(polarity * spec.cells + cell, fields)
                return ((total[:, word] >> (low * bits)) & (2**bits - 1)).astype(jnp.float32)

            active = jnp.sum(on, axis=1, keepdims=True)
            value = _combine(field, active, own_sign[:, None, :], own_flipped[:, :, None, :], spec) << shift
            sums[place] = sums[place] - value if negative else sums[place] + value
        return sums, None

    zeros = [jnp.zeros((codes.shape[0], columns), jnp.int32)] * -(-spec.input_bits // width)
    sums, _ = lax.scan(fragment_step, zeros, (jnp.stack(streams, 1), packed, sign, flipped))
    return jnp.stack(sums)


def direct_product(chip: Chip, codes: Array, spec: CrossbarSpec, key: Key | None = None) -> Array:
    """Every read of every fragment, bit and cell; noisy if the spec is, then with a key."""
    width = limb_bits(spec, codes.shape[-1])
    streams = [jnp.moveaxis(split_fragments(stream.T, spec.fragment), 2, 1) for stream in _streams(codes, spec)]
    current = jnp.moveaxis(excess(chip, spec), 2, 0)
    sign, flipped = jnp.moveaxis(chip.sign, 1, 0), jnp.moveaxis(chip.flipped, 2, 0)

    def fragment_step(sums: Array, part: tuple[Array, ...]) -> tuple[Array, None]:
        fragment, inputs, g, own_sign, own_flipped = part

        def bit_step(sums: Array, bit: Array) -> tuple[Array, None]:
            on = (inputs >> bit) & 1
            noise = [None] * spec.passes
            if spec.read_noise > 0:
                noise = read_noise(needed(key), fragment, bit, codes.shape[0], sums.shape[-1], spec)
            # a signed input's two passes are two reads with opposite signs
            reads = [
                _combine(
                    _currents(on[number], g, noise[number], spec),
                    jnp.sum(on[number], axis=1, keepdims=True),
                    own_sign[:, None, :],
                    own_flipped[:, :, None, :],
                    spec,
                )
                for number in range(spec.passes)
            ]
            value = reads[0] if spec.passes == 1 else reads[0] - reads[1]
            return sums.at[bit // width].add(value << (bit % width)), None

        return lax.scan(bit_step, sums, jnp.arange(spec.input_bits))[0], None

    limbs = -(-spec.input_bits // width)
    zeros = jnp.zeros((limbs, codes.shape[0], chip.sign.shape[-1]), jnp.int32)
    return lax.scan(fragment_step, zeros, (jnp.arange(sign.shape[0]), jnp.stack(streams, 1), current, sign, flipped))[0]


def _currents(on: Array, conductance: Array, noise: Array | None, spec: CrossbarSpec) -> Callable[[int, int], Array]:
    """The `(b, n)` currents of `(b, m)` input bits through a polarity and cell of `(p, c, m, n)`, with noise.

    Few rows are added one by one, in the order in which tables are built: both paths agree to the last bit.
    """
    ideal = _ideal_currents(on, conductance, spec)
    return ideal if noise is None else lambda polarity, cell: ideal(polarity, cell) + noise[polarity, cell]


def _ideal_currents(on: Array, conductance: Array, spec: CrossbarSpec) -> Callable[[int, int], Array]:
    if spec.fragment > _UNROLLED_ROWS:
        every = jnp.einsum("bm,pcmn->pcbn", on.astype(jnp.float32), conductance, precision=lax.Precision.HIGHEST)
        return lambda polarity, cell: every[polarity, cell]

    def some(polarity: int, cell: int, rows: range) -> Array:
        total = jnp.zeros((), jnp.float32)
        for row in rows:
            total = total + jnp.where(on[:, row, None] == 1, conductance[polarity, cell, None, row, :], 0.0)
        return total

    middle = spec.fragment // 2
    return lambda polarity, cell: (
        some(polarity, cell, range(middle, spec.fragment)) + some(polarity, cell, range(middle))
    )
