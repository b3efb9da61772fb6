"""A matrix product on a charge-domain SRAM macro (CAP-RAM): encode, program, read.

Letters of shapes: `f` blocks of 128 rows, `p` polarities (2 for a pair of slices that one converter reads), `s`
converted digits of a weight, `m` input lines, `k` rows, `n` columns, `b` input vectors.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from modicum.analog import converters
from modicum.analog.charge_spec import LARGEST_NIBBLE, LARGEST_SUM, LINES, NIBBLE_BITS, ChargeSpec
from modicum.core import Key, check


class Block(NamedTuple):
    """The macros of 128 rows; a chip has these with an axis of blocks `f` in front.

    Every column has slices of its own, with draws of its own; on a real macro, columns in different cells of a
    cluster share them. All columns of a block share its DACs.
    """

    cells: Int[Array, " *f p s m n"]
    """Stored bits."""
    share: Float[Array, " *f p s m n"]
    """What a cluster adds to its line per unit of input, 1 if all capacitors match."""
    dac: Float[Array, " *f m d"]
    """Deviation of the DACs' binary sized branches, smallest first, in input codes."""
    gain: Float[Array, " *f s n"]
    """Of a slice (or pair) with its converter, 1 if nothing varies."""
    offset: Float[Array, " *f s n"]
    """In converter steps, with what coupling and injection leave."""
    bend: Float[Array, " *f j s n"]
    """Quadratic and cubic Legendre coefficients of the transfer curve, in converter steps."""
    slope: Float[Array, " *f s n"]
    """What calibration divides by."""
    intercept: Float[Array, " *f s n"]
    """What calibration subtracts first, in converter steps."""


class ChargeChip(NamedTuple):
    """Programmed macros."""

    blocks: Block
    """With the blocks in front."""
    master: Float[Array, " l"]
    """Legendre coefficients of the chip-wide curve that calibration subtracts last, in converter steps."""
    step: Float[Array, ""]
    """Value of one weight level."""
    weights: Float[Array, " k n"]
    """What was to be programmed; only the straight-through gradient reads it."""


def encode(levels: Int[Array, " *k"], spec: ChargeSpec) -> Int[Array, " p s *k"]:
    """The bits that hold integer weights: a slice per bit, or a positive and a negative slice per ternary digit.

    Args:
        levels: within `spec.levels`. Of the ternary digits of a number, those of its sign are taken.
        spec: macro.

    Example:
        >>> encode(jnp.array([-3, 2]), ChargeSpec(weight_bits=3)).tolist()
        [[[0, 0], [0, 1]], [[1, 0], [1, 0]]]
        >>> encode(jnp.array([-3, 2]), ChargeSpec(encoding="twos_complement", weight_bits=4)).tolist()
        [[[1, 0], [0, 1], [1, 0], [1, 0]]]

    Reference: CAP-RAM, section III-A, figure 9.
    """
    parts = [jnp.maximum(levels, 0), jnp.maximum(-levels, 0)] if spec.polarities == 2 else [levels]
    # the arithmetic shift of a negative integer continues its two's complement
    digits = [jnp.stack([(part >> digit) & 1 for digit in range(spec.digits)]) for part in parts]
    return jnp.stack(digits).astype(jnp.int8)


def decode(cells: Int[Array, " p s *k"], spec: ChargeSpec) -> Int[Array, " *k"]:
    """The integer weights that bits stand for: the inverse of `encode`.

    Reference: CAP-RAM, section III-A.
    """
    digits = cells.astype(jnp.int32)
    digits = digits[0] - digits[1] if spec.polarities == 2 else digits[0]
    return jnp.tensordot(jnp.array(spec.places, jnp.int32), digits, axes=1)


def charge_share(deviation: Float[Array, " *s"], axis: int, spec: ChargeSpec) -> Float[Array, " *s"]:
    r"""What each capacitor moves its line by, relative to a line of nominal ones.

    `(1 + d_i) (128 C + C_line) / (sum_j C (1 + d_j) + C_line) = (1 + d_i) / (1 + sharing mean(d))`.

    Args:
        deviation: relative, `d`, of every capacitor.
        axis: runs along the 128 clusters of a line.
        spec: macro; reads `sharing`.

    Reference: CAP-RAM, section II-A (accumulation phase).
    """
    mean = jnp.mean(deviation, axis=axis, keepdims=True)
    return (1.0 + deviation) / (1.0 + spec.sharing * mean)


@partial(jax.jit, static_argnames="spec")
def program(key: Key, weights: Float[Array, " ..."], spec: ChargeSpec) -> ChargeChip:
    """Macros that hold `weights`, with the variation of this chip; uncalibrated.

    Differentiable in `weights`, straight through.

    Args:
        key: which chip: the same key gives the same chip.
        weights: `(rows, columns)`; one column is one output. More than 128 rows take several reads.
        spec: macro.

    Raises:
        ValueError: if `weights` is no matrix.

    Example:
        >>> program(jax.random.key(0), jnp.ones((130, 4)), ChargeSpec(weight_bits=3)).blocks.cells.shape
        (2, 2, 2, 128, 4)

    Reference: CAP-RAM, sections II-A, III and IV-A.
    """
    check.rank((2,), weights=weights)
    weights = weights.astype(jnp.float32)
    step = converters.weight_step(lax.stop_gradient(weights), spec.steps)
    lowest, highest = spec.levels
    levels = jnp.clip(jnp.round(lax.stop_gradient(weights) / step), lowest, highest).astype(jnp.int32)
    levels = jnp.repeat(levels, spec.copies, axis=0)
    cells = jnp.moveaxis(encode(converters.split_fragments(levels, LINES), spec), 2, 0)

    blocks, polarities, digits, _, columns = cells.shape
    slices = (blocks, digits, columns)
    capacitors, dacs, gains, offsets, residues, bends = jax.random.split(key, 6)
    share = jnp.ones(cells.shape, jnp.float32)
    if spec.capacitor_sigma > 0:
        share = charge_share(_spread(capacitors, spec.capacitor_sigma, cells.shape), 3, spec)
    # the variances of 1 + 2 + 4 + 8 units add up to that of code 15
    unit = spec.dac_volts / spec.full_scale_volts * LARGEST_NIBBLE**0.5
    sizes = jnp.sqrt(2.0 ** jnp.arange(NIBBLE_BITS, dtype=jnp.float32)).reshape(1, 1, -1)
    residue = _spread(residues, spec.residue_volts / spec.lsb_volts, (polarities, *slices))
    residue = residue[0] - residue[1] if polarities == 2 else residue[0]
    bend = _spread(bends, spec.inl_spread_lsb, (blocks, 2, digits, columns))
    block = Block(
        cells=cells,
        share=share,
        dac=_spread(dacs, unit, (blocks, LINES, NIBBLE_BITS)) * sizes,
        gain=1.0 + _spread(gains, spec.gain_sigma, slices),
        offset=_spread(offsets, spec.offset_lsb, slices) + residue,
        bend=bend.at[:, 1].add(spec.inl_lsb),
        slope=jnp.ones(slices, jnp.float32),
        intercept=jnp.zeros(slices, jnp.float32),
    )
    return ChargeChip(block, jnp.zeros(1, jnp.float32), step, weights)


def _spread(key: Key, sigma: float, shape: tuple[int, ...]) -> Array:
    """Normal draws of a standard deviation; none are made for 0."""
    if sigma == 0:
        return jnp.zeros(shape, jnp.float32)
    # drawn flat: XLA compiles that many times faster than a draw of several axes
    return sigma * jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def drive(codes: Int[Array, " *b m"], dac: Float[Array, " m d"], spec: ChargeSpec) -> Float[Array, " *b m"]:
    """What the DACs put on the input lines, in codes.

    Args:
        codes: 0 to 15.
        dac: deviation of each DAC's branches, in codes.
        spec: macro; without `dac_volts` the lines follow the codes exactly.

    Reference: CAP-RAM, section III-C, figure 12.
    """
    level = codes.astype(jnp.float32)
    if spec.dac_volts > 0:
        for bit in range(NIBBLE_BITS):
            level = level + jnp.where((codes >> bit) & 1 == 1, dac[:, bit], 0.0)
    return level


def accumulate(
    level: Float[Array, " b m"], cells: Num[Array, " p #s #m #n"], share: Float[Array, " p s m n"], spec: ChargeSpec
) -> Float[Array, " s b n"]:
    """Charge sharing: the swing of the output lines in converter steps, differences of a pair's two lines.

    This is the smooth part of a read: differentiable in `level`, `cells` and `share`.

    Args:
        level: of the input lines, in codes.
        cells: `(p, s, m, n)` bits, 0 pulls a capacitor back to the supply.
        share: as in `Block`.
        spec: macro; reads `lsb`.

    Reference: CAP-RAM, section II-A.
    """
    line = jnp.einsum("bm,psmn->psbn", level, cells.astype(jnp.float32) * share, precision=lax.Precision.HIGHEST)
    # a product, not a quotient: XLA rounds quotients by constants differently when they are batched
    return (line[0] - line[1] if spec.polarities == 2 else line[0]) * jnp.float32(1.0 / spec.lsb)


def legendre(steps: Float[Array, " *s"], degree: int, spec: ChargeSpec) -> Float[Array, " l *s"]:
    """Legendre polynomials 0 to `degree` over the range of a slice's sums; what lies beyond takes the edge's value.

    They are orthogonal there, so that a linear fit does not see those from 2 on.

    Args:
        steps: sums in converter steps.
        degree: highest.
        spec: macro; the range is +-1920 products for a pair and 0 to 1920 for one slice.
    """
    place = steps * (spec.lsb / LARGEST_SUM)
    place = jnp.clip(place if spec.polarities == 2 else 2.0 * place - 1.0, -1.0, 1.0)
    values = [jnp.ones_like(place), place]
    for n in range(1, degree):
        values.append(((2 * n + 1) * place * values[n] - n * values[n - 1]) / (n + 1))
    return jnp.stack(values[: degree + 1])


def convert(key: Key, line: Float[Array, " s b n"], block: Block, spec: ChargeSpec) -> Float[Array, " s b n"]:
    """The converters: gain, bend, offset and noise of their slices, then rounding and saturation.

    Args:
        key: of the noise.
        line: from `accumulate`.
        block: one: `gain` and its like are `(s, n)`.
        spec: macro.

    Returns:
        Codes, whole numbers unless the converter is ideal.

    Reference: CAP-RAM, sections III-B, IV-A.2 and IV-B.2.
    """
    value = line * block.gain[:, None, :] + block.offset[:, None, :]
    if spec.inl_lsb > 0 or spec.inl_spread_lsb > 0:
        _, _, quadratic, cubic = legendre(line, 3, spec)
        value = value + block.bend[0][:, None, :] * quadratic + block.bend[1][:, None, :] * cubic
    if spec.noise_lsb > 0:
        value = value + _spread(key, spec.noise_lsb, value.shape)
    if spec.adc_bits is None:
        return value
    lowest, highest = spec.codes
    return jnp.clip(jnp.round(value), lowest, highest)


def correct(
    codes: Float[Array, " s b n"], block: Block, master: Float[Array, " l"], spec: ChargeSpec
) -> Float[Array, " s b n"]:
    """Undo what calibration has found: `(code - intercept) / slope`, less the master curve.

    Args:
        codes: from `convert`.
        block: one.
        master: Legendre coefficients of the master curve.
        spec: macro.

    Reference: CAP-RAM, section IV-A.3.
    """
    straight = (codes - block.intercept[:, None, :]) / block.slope[:, None, :]
    curve = legendre(straight, master.shape[0] - 1, spec)
    return straight - jnp.tensordot(master, curve, axes=1)


def read(key: Key, chip: ChargeChip, inputs: Float[Array, " *b k"], spec: ChargeSpec) -> Float[Array, " *b n"]:
    r"""What the chip computes in place of `inputs @ weights`.

    `y_n = dw dx lsb sum_f sum_s 2^s sum_q 16^q ADC(sum_m cell_sfmn nibble_q(x)_fm / lsb)`, with the weight and input
    steps `dw` and `dx`; the highest two's complement digit and the second pass of signed inputs are subtracted. The
    gradient is that of `clip(inputs) @ weights`, where `clip` keeps to the range of the input codes.

    The sums are float32: an exact converter gives exact integers up to `2^24`, which no product of 8-bit inputs and
    8-bit weights reaches below 513 rows.

    Args:
        key: of the noise of these conversions; another key is another read of the same chip.
        chip: from `program` (and `calibrate`) with the same spec.
        inputs: vectors of rows; leading axes are batch. All of one call share one input step.
        spec: macro.

    Raises:
        ValueError: if the inputs are not as long as the chip's columns.

    Example:
        >>> spec = ChargeSpec(weight_bits=5, adc_bits=12, lsb=1.0, dac_volts=0.0, residue_volts=0.0, noise_lsb=0.0)
        >>> chip = program(jax.random.key(0), jnp.array([[1.0, -7.0], [3.0, 2.0]]), spec)
        >>> read(jax.random.key(1), chip, jnp.array([15.0, -4.0]), spec)
        Array([   3., -113.], dtype=float32)

    Reference: CAP-RAM, equation 3 and sections II to IV.
    """
    if inputs.shape[-1] != chip.weights.shape[0]:
        raise ValueError(
            f"inputs must be vectors of {chip.weights.shape[0]} rows, as the chip's weights, got shape {inputs.shape}"
        )
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    return _straight_through(spec, chip.weights, flat, chip, key).reshape(*inputs.shape[:-1], -1)


@partial(jax.jit, static_argnames="spec")
def _product(key: Key, chip: ChargeChip, codes: Array, spec: ChargeSpec) -> Array:
    """`(vectors, columns)` float32, in units of weight level times input code."""
    blocks = chip.blocks.cells.shape[0]
    lines = jnp.repeat(codes.T, spec.copies, axis=0)
    cut = jnp.swapaxes(converters.split_fragments(lines, LINES), 1, 2)
    places = jnp.array(spec.places, jnp.float32)

    shifts = NIBBLE_BITS * jnp.arange(spec.cycles, dtype=jnp.int32)
    scales = jnp.ldexp(jnp.ones(spec.cycles, jnp.float32), shifts)
    scales = jnp.concatenate([scales, -scales][: spec.passes])

    def block_step(total: Array, part: tuple[Block, Array, Key]) -> tuple[Array, None]:
        block, own, block_key = part
        streams = jnp.stack([jnp.maximum(own, 0), jnp.maximum(-own, 0)][: spec.passes])
        nibbles = (streams[:, None] >> shifts.reshape(1, -1, 1, 1)) & LARGEST_NIBBLE

        def cycle_step(total: Array, cycle: tuple[Array, Array, Key]) -> tuple[Array, None]:
            nibble, scale, cycle_key = cycle
            line = accumulate(drive(nibble, block.dac, spec), block.cells, block.share, spec)
            value = correct(convert(cycle_key, line, block, spec), block, chip.master, spec)
            return total + scale * jnp.tensordot(places, value, axes=1, precision=lax.Precision.HIGHEST), None

        every = (nibbles.reshape(-1, *own.shape), scales, jax.random.split(block_key, scales.shape[0]))
        return lax.scan(cycle_step, total, every)[0], None

    zeros = jnp.zeros((codes.shape[0], chip.weights.shape[-1]), jnp.float32)
    total, _ = lax.scan(block_step, zeros, (chip.blocks, cut, jax.random.split(key, blocks)))
    return total * jnp.float32(spec.lsb / spec.copies)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(spec: ChargeSpec, weights: Array, inputs: Array, chip: ChargeChip, key: Key) -> Array:
    del weights
    codes, step = converters.quantize_inputs(inputs, spec.steps)
    return _product(key, chip, codes, spec) * (chip.step * step)


def _forward(
    spec: ChargeSpec, weights: Array, inputs: Array, chip: ChargeChip, key: Key
) -> tuple[Array, tuple[Array, Array]]:
    return _straight_through(spec, weights, inputs, chip, key), (weights, inputs)


def _backward(spec: ChargeSpec, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None, None]:
    return *converters.straight_through(*residuals, cotangent, spec.steps), None, None


_straight_through.defvjp(_forward, _backward)
