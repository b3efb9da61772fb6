"""Between numbers and levels: weight steps, input codes, cells, the ADC."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modicum.analog.spec import CrossbarSpec

# Squared rounding errors this small against the weights' energy are float32 noise, not distance from a grid.
_GRID_TOLERANCE = 1e-11
_INT32 = 2**31 - 1


def weight_step(weights: Float[Array, " k n"], spec: CrossbarSpec) -> Float[Array, ""]:
    r"""The value of one weight level on this crossbar.

    `'grid'` returns the largest step `max|w| / j`, `1 <= j <= levels`, among those of least
    `sum (w - step round(w / step))^2`. Weights `step q` on a grid with largest `|q| = j` have error 0 there, so they
    are held exactly even if they leave the highest levels unused; elsewhere it is never worse than `'max'`.

    Args:
        weights: matrix to be programmed.
        spec: crossbar; reads `weight_scale` and `levels`.

    Example:
        >>> weights = 0.3 * jnp.array([[1.0, -5.0], [2.0, 0.0]])
        >>> float(weight_step(weights, CrossbarSpec(weight_bits=4))).__round__(4)
        0.3
    """
    if not isinstance(spec.weight_scale, str):
        return jnp.asarray(spec.weight_scale, jnp.float32)
    largest = jnp.max(jnp.abs(weights))
    largest = jnp.where(largest > 0, largest, 1.0)
    if spec.weight_scale == "max":
        return largest * (1.0 / spec.levels)

    def error(level: Array) -> Array:
        step = largest / level
        return jnp.sum(jnp.square(weights - step * jnp.round(weights / step)))

    candidates = jnp.arange(1, spec.levels + 1, dtype=jnp.float32)
    errors = lax.map(error, candidates)
    good = errors <= jnp.min(errors) + _GRID_TOLERANCE * jnp.sum(jnp.square(weights))
    return largest / candidates[jnp.argmax(good)]


def quantize_weights(weights: Float[Array, " k n"], spec: CrossbarSpec) -> tuple[Int[Array, " k n"], Float[Array, ""]]:
    """Signed levels `-levels ... levels` of a matrix, and the value of one level."""
    step = weight_step(weights, spec)
    levels = jnp.clip(jnp.round(weights / step), -spec.levels, spec.levels)
    return levels.astype(jnp.int32), step


def quantize_inputs(inputs: Float[Array, " *b"], spec: CrossbarSpec) -> tuple[Int[Array, " *b"], Float[Array, ""]]:
    """Input codes and the value of one code.

    Args:
        inputs: any shape; one step for all of it.
        spec: crossbar; reads `input_bits`, `input_format` and `input_scale`.

    Returns:
        Codes of `0 ... 2 ** input_bits - 1`, or of both signs if inputs are signed; and their step.

    Example:
        >>> codes, step = quantize_inputs(jnp.array([0.0, 0.5, -1.5]), CrossbarSpec(input_bits=2))
        >>> codes.tolist(), float(step)
        ([0, 1, -3], 0.5)
    """
    lowest = -spec.input_levels if spec.input_format == "signed" else 0
    if isinstance(spec.input_scale, str):
        largest = jnp.max(jnp.abs(inputs) if spec.input_format == "signed" else jnp.maximum(inputs, 0.0))
        # a product, not a quotient: XLA rounds quotients by constants differently when they are batched
        step = jnp.where(largest > 0, largest, 1.0) * (1.0 / spec.input_levels)
    else:
        step = jnp.asarray(spec.input_scale, jnp.float32)
    codes = jnp.clip(jnp.round(inputs / step), lowest, spec.input_levels)
    return codes.astype(jnp.int32), step


def input_range(spec: CrossbarSpec) -> tuple[float, float]:
    """The inputs that do not saturate, lowest and highest: what a straight-through gradient passes."""
    highest = float("inf") if isinstance(spec.input_scale, str) else spec.input_levels * spec.input_scale
    return (-highest if spec.input_format == "signed" else 0.0), highest


def slice_cells(magnitudes: Int[Array, " *s"], spec: CrossbarSpec) -> Int[Array, " c *s"]:
    """The digits of each magnitude, least significant first: `sum_c cell_c 2 ** (c cell_bits)`."""
    return jnp.stack([(magnitudes >> (cell * spec.cell_bits)) & spec.cell_levels for cell in range(spec.cells)])


def transitions(spec: CrossbarSpec) -> tuple[float, ...]:
    """The currents, in cell levels, at which the converter goes from code `k - 1` to `k`, `k = 1 ... largest_code`.

    `T_k = (k - 1/2 - adc_offset - adc_inl_k) / adc_gain`; the ideal ones lie half-way between codes. They are
    returned in order: a converter whose non-linearity swaps two transitions still counts those it has passed.

    Args:
        spec: crossbar with a converter, `adc_bits` not `None`.

    Example:
        >>> transitions(CrossbarSpec(adc_bits=2, adc_offset=0.25, adc_inl=(0.0, 0.5, 0.0)))
        (0.25, 0.75, 2.25)

    Reference: IEEE Std 1241, terminology (gain, offset and integral non-linearity by code transition levels).
    """
    inl = spec.adc_inl or (0.0,) * (spec.largest_code or 0)
    return tuple(sorted((k + 0.5 - spec.adc_offset - error) / spec.adc_gain for k, error in enumerate(inl)))


def convert(current: Float[Array, " *s"], spec: CrossbarSpec) -> Int[Array, " *s"]:
    """The ADC: current in cell levels to codes of `0 ... 2 ** adc_bits - 1`.

    The nearest code; or with errors of its own, the number of `transitions` that the current has reached.
    """
    if spec.transfers:
        levels = jnp.asarray(transitions(spec), jnp.float32)
        return jnp.searchsorted(levels, current, side="right").astype(jnp.int32)
    return jnp.clip(jnp.round(current), 0, spec.largest_code).astype(jnp.int32)


def split_fragments(matrix: Array, fragment: int) -> Array:
    """Rows cut into fragments, `(k, ...)` to `(f, m, ...)`; the last is filled with zeros."""
    missing = -matrix.shape[0] % fragment
    padded = jnp.pad(matrix, [(0, missing)] + [(0, 0)] * (matrix.ndim - 1))
    return padded.reshape(-1, fragment, *matrix.shape[1:])


def effective_bits(codes: Int[Array, " b k"], spec: CrossbarSpec) -> Float[Array, ""]:
    """Mean bits that must be streamed per pass and fragment when leading zeros are skipped (FORMS' mean EIC).

    A fragment's inputs need as many cycles as the longest of them has bits; none if all are zero.

    Args:
        codes: input codes, one row per input vector.
        spec: crossbar; reads `fragment` and `input_format`.

    Reference: FORMS, section III-D (effective input cycles).
    """
    parts = jnp.stack([codes, -codes]) if spec.input_format == "signed" else codes[None]
    fragments = split_fragments(jnp.moveaxis(jnp.maximum(parts, 0), 2, 0), spec.fragment)
    longest = jnp.max(fragments, axis=1)
    return jnp.mean(32.0 - lax.clz(longest).astype(jnp.float32))


def clip_inputs(inputs: Float[Array, " *b"], spec: CrossbarSpec) -> Float[Array, " *b"]:
    """Inputs as the converter sees them before rounding; the identity where nothing saturates."""
    lowest, highest = input_range(spec)
    return jnp.clip(inputs, lowest, highest)


def passes_gradient(inputs: Float[Array, " *b"], spec: CrossbarSpec) -> Array:
    """Where an input lies within the range of codes, so that its gradient passes."""
    lowest, highest = input_range(spec)
    return jnp.logical_and(inputs >= lowest, inputs <= highest)


def straight_through(
    weights: Float[Array, " k n"], inputs: Float[Array, " b k"], cotangent: Float[Array, " b n"], spec: CrossbarSpec
) -> tuple[Float[Array, " k n"], Float[Array, " b k"]]:
    """Cotangents of weights and inputs as if `clip(inputs) @ weights` were computed, where `clip` keeps to codes."""
    to_weights = clip_inputs(inputs, spec).T @ cotangent
    return to_weights, jnp.where(passes_gradient(inputs, spec), cotangent @ weights.T, 0.0)


def largest_fragment(spec: CrossbarSpec) -> int:
    """Bound of what one fragment adds per input bit, in weight levels."""
    if spec.linear:
        return spec.fragment * spec.largest_weight
    code = spec.largest_code or 0
    value = max(code, spec.fragment * spec.cell_levels) if spec.flips else code
    places = sum(2 ** (cell * spec.cell_bits) for cell in range(spec.cells))
    return value * places * spec.polarities + spec.fragment * spec.bias


def limb_bits(spec: CrossbarSpec, rows: int) -> int:
    """Input bits whose product with so many rows surely fits int32.

    Raises:
        ValueError: if not even one bit fits.
    """
    fragments = -(-rows // spec.fragment)
    bound = fragments * largest_fragment(spec) * (1 if spec.linear else spec.passes)
    bits = (_INT32 // bound + 1).bit_length() - 1
    if bits < 1:
        raise ValueError(
            f"rows must be few enough for int32 sums of {spec.weight_bits}-bit weights read in fragments of "
            f"{spec.fragment} rows through {spec.adc_bits} converter bits, got {rows}"
        )
    return min(bits, spec.input_bits)
