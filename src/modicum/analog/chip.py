"""Program a matrix into a crossbar: levels, signs, cells, conductances."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modicum.analog import converters
from modicum.analog.spec import CrossbarSpec
from modicum.analog.variation import vary
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


@partial(jax.jit, static_argnames="spec")
def program(key: Key, weights: Float[Array, " k n"], spec: CrossbarSpec) -> Chip:
    """A chip that holds `weights` as well as it can.

    Weights become levels, levels cells, cells conductances; then the variation of this chip is drawn. Differentiable
    in `weights`, straight through.

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
    return Chip(conductance, sign, flipped, step, weights.astype(jnp.float32))


def _encode(levels: Int[Array, " f m n"], spec: CrossbarSpec) -> tuple[Int[Array, " p f m n"], Int[Array, " p f n"]]:
    """Magnitudes per polarity, and the sign of each fragment column."""
    shape = (levels.shape[0], levels.shape[2])
    if spec.encoding == "differential":
        sign = jnp.stack([jnp.full(shape, 1, jnp.int8), jnp.full(shape, -1, jnp.int8)])
        return jnp.maximum(jnp.stack([levels, -levels]), 0), sign
    # The sign that keeps more energy. FORMS takes the sum's, which is the same wherever weights are polarized.
    parts = jnp.maximum(jnp.stack([levels, -levels]), 0)
    positive, negative = jnp.sum(jnp.square(parts.astype(jnp.float32)), axis=2)
    sign = jnp.where(positive >= negative, 1, -1).astype(jnp.int8)
    return jnp.maximum(sign[:, None, :] * levels, 0)[None], sign[None]


def held_weights(weights: Float[Array, " k n"], spec: CrossbarSpec) -> Float[Array, " k n"]:
    """The weights that a chip without variation stands for: rounded, and without what its encoding cannot hold."""
    levels, step = converters.quantize_weights(weights, spec)
    magnitudes, sign = _encode(converters.split_fragments(levels, spec.fragment), spec)
    held = jnp.sum(magnitudes * sign[:, :, None, :], axis=0)
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

    The largest current of a fragment column is that of all rows at once: `sum_m (g_m - g_off)^+ <= largest code`.
    """
    if spec.largest_code is None:
        return jnp.ones(chip.conductance.shape[-1], bool)
    excess = jnp.maximum(chip.conductance - spec.off_conductance, 0.0)
    worst = jnp.max(jnp.sum(excess, axis=3), axis=(0, 1, 2))
    return jnp.round(worst) <= spec.largest_code
