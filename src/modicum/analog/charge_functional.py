"""A charge-domain macro as one product with noise: what trains a network for it many times faster than its reads."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.analog import converters
from modicum.analog.charge_cost import CAPRAM, Macro, cost
from modicum.analog.charge_spec import LINES, NIBBLE_BITS, ChargeSpec
from modicum.analog.functional import noise
from modicum.analog.simulate import Device, changed
from modicum.core import Key


class HeldWeights(NamedTuple):
    """Rounded weights."""

    levels: Float[Array, " k n"]
    """Whole numbers."""
    step: Float[Array, ""]
    """Value of one level."""
    weights: Float[Array, " k n"]
    """What was to be held; only the straight-through gradient reads it."""


def error_deviation(rows: int, spec: ChargeSpec) -> float:
    r"""Standard deviation of what reads add to one output, in products of weight level and input code.

    Every conversion errs by its noise, by rounding (`1 / 12`, which noise of a third of a step makes nearly
    independent of the sum) and by what coupling leaves; digits, nibbles, passes and blocks add up with their places:
    `lsb / copies sqrt(blocks passes sum_s 4^s sum_q 256^q (noise^2 + 1/12 + residue^2))`.

    Args:
        rows: of the weight matrix.
        spec: macro. Saturation, DACs, gains, bends and capacitors are left out.

    Example:
        >>> round(error_deviation(128, ChargeSpec(residue_volts=0.0, input_format="unsigned")), 2)  # 30 x .454
        13.61
    """
    residue = spec.residue_volts / spec.lsb_volts
    own = spec.noise_lsb**2 + (0.0 if spec.adc_bits is None else 1 / 12) + spec.polarities * residue**2
    places = sum(place**2 for place in spec.places)
    nibbles = sum(2.0 ** (2 * NIBBLE_BITS * cycle) for cycle in range(spec.cycles))
    blocks = -(-rows * spec.copies // LINES)
    return spec.lsb / spec.copies * math.sqrt(blocks * spec.passes * places * nibbles * own)


def capram_functional(spec: ChargeSpec | None = None, *, macro: Macro = CAPRAM, **changes: object) -> Device:
    """`capram` with all reads of an output as one product and one normal draw of the same deviation.

    For training: one step costs little more than a dense one. Measure on `capram`.

    Args:
        spec: its numbers, by default `ChargeSpec()`.
        macro: powers and sizes for the cost.
        **changes: fields of the spec to replace.

    Raises:
        ValueError: for an unknown field or a number out of its range.

    Example:
        >>> quiet = capram_functional(noise_lsb=0.0, adc_bits=None, residue_volts=0.0, weight_bits=5, weight_scale=1.0)
        >>> held = quiet.program(jax.random.key(0), jnp.array([[1.2, -7.0], [3.0, 2.0]]), quiet.spec)
        >>> quiet.read(jax.random.key(1), held, jnp.array([15.0, -4.0]), quiet.spec)
        Array([   3., -113.], dtype=float32)
    """
    chosen = changed("capram_functional", ChargeSpec() if spec is None else spec, changes)
    return Device(chosen, _hold, _read, partial(cost, macro=macro))


@partial(jax.jit, static_argnames="spec")
def _hold(key: Key, weights: Float[Array, " k n"], spec: ChargeSpec) -> HeldWeights:
    del key
    weights = weights.astype(jnp.float32)
    step = converters.weight_step(lax.stop_gradient(weights), spec.steps)
    levels = jnp.clip(jnp.round(lax.stop_gradient(weights) / step), *spec.levels)
    return HeldWeights(levels, step, weights)


def _read(key: Key, held: HeldWeights, inputs: Float[Array, " *b k"], spec: ChargeSpec) -> Float[Array, " *b n"]:
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    return _straight_through(spec, held.weights, flat, held, key).reshape(*inputs.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(spec: ChargeSpec, weights: Array, inputs: Array, held: HeldWeights, key: Key) -> Array:
    codes, step = converters.quantize_inputs(inputs, spec.steps)
    total = codes.astype(jnp.float32) @ held.levels
    total = total + noise(key, error_deviation(weights.shape[0], spec), total)
    return total * (held.step * step)


def _forward(
    spec: ChargeSpec, weights: Array, inputs: Array, held: HeldWeights, key: Key
) -> tuple[Array, tuple[Array, Array]]:
    return _straight_through(spec, weights, inputs, held, key), (weights, inputs)


def _backward(spec: ChargeSpec, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None, None]:
    return *converters.straight_through(*residuals, cotangent, spec.steps), None, None


_straight_through.defvjp(_forward, _backward)
