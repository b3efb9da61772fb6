"""Program a matrix into a crossbar: levels, signs, cells, conductances."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modicum.analog import converters
from modicum.analog.spec import CrossbarSpec
from modicum.analog.variation import drift, vary
from modicum.analog.wires import drop_in_arrays
from modicum.core import Key


class Chip(NamedTuple):
    """A programmed crossbar.

    Letters: `p` polarities (1, or 2 for differential columns), `c` cells of a weight, `f` fragments, `m` rows of a
    fragment, `k` rows, `n` columns.
    """

    conductance: Float[Array, " p c f m n"]
    """In cell levels above zero conductance, as programming left it."""
    sign: Int[Array, " p f n"]
    """+1 or -1: how a fragment's reads enter the sum."""
    flipped: Bool[Array, " p c f n"]
    """Fragment columns that hold complements."""
    step: Float[Array, ""]
    """Value of one weight level."""
    weights: Float[Array, " k n"]
    """What was to be programmed; only the straight-through gradient reads it."""
    reference: Float[Array, ""] | None = None
    """What is left of a reference current, which the reference column and the converters' steps follow. An array once
    `age` or `fold_wires` moved the cells, so that reads are no longer taken for whole numbers of steps; `None` before.
    """


@partial(jax.jit, static_argnames="spec")
def program(key: Key, weights: Float[Array, " k n"], spec: CrossbarSpec) -> Chip:
    """A chip that holds `weights` as well as it can.

    Weights become levels, levels cells, cells conductances; then the variation of this chip and its stuck cells are
    drawn, and what its wires drop is taken off. Differentiable in `weights`, straight through.

    Args:
        key: which chip: the same key gives the same chip.
        weights: `(rows, columns)`; one column is one output.
        spec: crossbar.

    Raises:
        ValueError: if the integers of so many rows do not fit the arithmetic.

    Reference: FORMS, sections III-A to III-C.
    """
    converters.limb_bits(spec, weights.shape[0])
    levels, step = converters.quantize_weights(lax.stop_gradient(weights.astype(jnp.float32)), spec)
    magnitudes, sign = _encode(converters.split_fragments(levels, spec.fragment), spec)
    cells = jnp.moveaxis(converters.slice_cells(magnitudes, spec), 0, 1)
    flipped = jnp.zeros((*cells.shape[:3], cells.shape[4]), bool)
    if spec.flips:
        flipped = 2 * jnp.sum(cells, axis=3) > spec.fragment * spec.cell_levels
        cells = jnp.where(flipped[:, :, :, None, :], spec.cell_levels - cells, cells)
    conductance = vary(key, cells.astype(jnp.float32) + spec.off_conductance, spec)
    if spec.wire_ratio > 0:
        conductance = drop_in_arrays(conductance, spec, _ratio_per_level(spec.wire_ratio, spec))
    return Chip(conductance, sign, flipped, step, weights.astype(jnp.float32))


def _encode(levels: Int[Array, " f m n"], spec: CrossbarSpec) -> tuple[Int[Array, " p f m n"], Int[Array, " p f n"]]:
    """Magnitudes per polarity, and the sign of each fragment column."""
    shape = (levels.shape[0], levels.shape[2])
    if spec.encoding == "offset":
        return (levels + spec.bias)[None], jnp.ones((1, *shape), jnp.int8)
    if spec.encoding == "differential":
        sign = jnp.stack([jnp.full(shape, 1, jnp.int8), jnp.full(shape, -1, jnp.int8)])
        return jnp.maximum(jnp.stack([levels, -levels]), 0), sign
    # The sign that keeps more energy. FORMS takes the sum's, which is the same wherever weights are polarized.
    parts = jnp.maximum(jnp.stack([levels, -levels]), 0)
    positive, negative = jnp.sum(jnp.square(parts.astype(jnp.float32)), axis=2)
    sign = jnp.where(positive >= negative, 1, -1).astype(jnp.int8)
    return jnp.maximum(sign[:, None, :] * levels, 0)[None], sign[None]


def _ratio_per_level(ratio: float | Array, spec: CrossbarSpec) -> float | Array:
    return ratio / (spec.cell_levels + spec.off_conductance)


def fold_wires(chip: Chip, spec: CrossbarSpec, ratio: float | Float[Array, ""]) -> Chip:
    """The chip with what its wires drop folded into its conductances (`ir_drop`), a fragment at a time.

    `spec.wire_ratio` has `program` do the same, for ratios that are not traced. Fold wires last: `age` moves cells.

    Args:
        chip: with ideal wires.
        spec: crossbar.
        ratio: resistance of the wire from cell to cell times the conductance of the highest level, not below 0.

    Example:
        >>> spec = CrossbarSpec(fragment=1, weight_bits=2, cell_bits=1, adc_bits=None, encoding="polarized")
        >>> chip = fold_wires(program(jax.random.key(0), jnp.ones((1, 1)), spec), spec, 0.5)
        >>> float(chip.conductance[0, 0, 0, 0, 0])  # a wire to the cell and one from it
        0.5
    """
    conductance = drop_in_arrays(chip.conductance, spec, _ratio_per_level(ratio, spec))
    return chip._replace(conductance=conductance, reference=_reference(chip))


def age(
    key: Key,
    chip: Chip,
    seconds: float | Float[Array, ""],
    exponent: float | Float[Array, ""],
    *,
    spread: float = 0.0,
    reference_seconds: float = 20.0,
    compensated: bool = True,
) -> Chip:
    """The chip some time after it was programmed, its cells drifted (`drift`), with global compensation.

    Compensation reads the current of all cells together and has the reference column and the converters' steps follow
    it. It undoes the drift that all cells have in common; what their exponents differ by remains. (The source scales
    the digital output. That is the same where outputs are currents, but stored complements and offsets add counts
    that do not drift.)

    Args:
        key: this chip's drift exponents: the same key gives the same ones at every time.
        chip: as programmed.
        seconds: time since programming.
        exponent: mean of the cells' exponents, not below 0.
        spread: standard deviation of the exponents, not below 0.
        reference_seconds: until when nothing has moved, above 0.
        compensated: whether to compensate.

    Raises:
        ValueError: for a negative spread or a reference time not above 0.

    Example:
        >>> from modicum.analog import crossbar, read
        >>> device = crossbar(adc_bits=8)
        >>> def program_and_age(key, weights, spec):
        ...     programming, aging = jax.random.split(key)
        ...     return age(aging, program(programming, weights, spec), 86400.0, 0.05, spread=0.01)
        >>> aged = device._replace(program=program_and_age)  # a device for `simulate`

    Reference: Le Gallo et al., Adv. Electron. Mater. 2018; Joshi et al., Nature Communications 2020 (global drift
    compensation).
    """
    drifted = drift(key, chip.conductance, seconds, exponent, spread=spread, reference_seconds=reference_seconds)
    reference = _reference(chip)
    if compensated:
        before, after = jnp.sum(chip.conductance), jnp.sum(drifted)
        reference = reference * jnp.where(before > 0, after / jnp.where(before > 0, before, 1.0), 1.0)
    return chip._replace(conductance=drifted, reference=reference)


def _reference(chip: Chip) -> Array:
    return jnp.ones((), jnp.float32) if chip.reference is None else chip.reference


def excess(chip: Chip, spec: CrossbarSpec) -> Float[Array, " p c f m n"]:
    """What each cell adds to a read, in converter steps: its conductance above the reference column's."""
    if chip.reference is None:
        return chip.conductance - spec.off_conductance
    return chip.conductance / chip.reference - spec.off_conductance


def reading_spec(chip: Chip, spec: CrossbarSpec) -> CrossbarSpec:
    """The spec to read a chip with: cells that moved since programming are not at whole levels, like varied ones."""
    # Reading asks of sigma only whether it is 0.
    return spec if chip.reference is None or not spec.whole else replace(spec, sigma=1.0)


def held_weights(weights: Float[Array, " k n"], spec: CrossbarSpec) -> Float[Array, " k n"]:
    """The weights that a chip without variation stands for: rounded, and without what its encoding cannot hold."""
    levels, step = converters.quantize_weights(weights, spec)
    magnitudes, sign = _encode(converters.split_fragments(levels, spec.fragment), spec)
    held = jnp.sum(magnitudes * sign[:, :, None, :], axis=0) - spec.bias
    return step * held.reshape(-1, held.shape[-1])[: weights.shape[0]]


def mapping_error(weights: Float[Array, " k n"], spec: CrossbarSpec) -> Float[Array, ""]:
    """Relative distance `||w - held|| / ||w||` of a matrix from what the crossbar can hold; 0 certifies a fit.

    Example:
        >>> mixed = jnp.array([[3.0], [-2.0]])
        >>> float(mapping_error(mixed, CrossbarSpec(weight_bits=4)))
        0.0
        >>> float(mapping_error(mixed, CrossbarSpec(weight_bits=4, encoding="polarized"))).__round__(3)
        0.555
    """
    norm = jnp.linalg.norm(weights)
    distance = jnp.linalg.norm(weights - held_weights(weights, spec))
    # Steps are float32: a weight on the grid differs from its level times the step by a rounding or two.
    return jnp.where(distance > 1e-6 * norm, distance / jnp.where(norm > 0, norm, 1.0), 0.0)


def certify(chip: Chip, spec: CrossbarSpec) -> Bool[Array, " n"]:
    """Columns of which no read can saturate the converter, whatever the inputs.

    The largest current of a fragment column is that of all rows at once: `sum_m (g_m - g_off)^+ <= largest code`,
    after the converter's gain and offset. Read noise and non-linearity come on top.
    """
    if spec.largest_code is None:
        return jnp.ones(chip.conductance.shape[-1], bool)
    current = jnp.maximum(excess(chip, spec), 0.0)
    worst = jnp.max(jnp.sum(current, axis=3), axis=(0, 1, 2))
    if spec.transfers:
        worst = spec.adc_gain * worst + spec.adc_offset
    return jnp.round(worst) <= spec.largest_code
