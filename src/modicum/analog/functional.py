"""A hardware-aware layer without hardware: rounded inputs and outputs, noisy weights and outputs, one product."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.analog import converters
from modicum.analog.simulate import Device, changed
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key, check


@dataclass(frozen=True, kw_only=True)
class FunctionalSpec:
    """What a layer is trained to bear, in parts of full scale: of the largest weight, input and their product.

    Attributes:
        input_bits: of the input converter, 1 to 16, a sign not among them.
        output_bits: of the output converter, 2 to 16, its sign included; None neither rounds nor saturates.
        output_bound: largest output, in products of a full weight with a full input, above 0.
        weight_noise: standard deviation of each weight, drawn once per chip, not below 0.
        output_noise: standard deviation of each output before it is converted, drawn at every read, not below 0.
        input_format: as in `CrossbarSpec`.
        input_scale: likewise.

    Raises:
        ValueError: for a number out of its range.

    Reference: Rasch et al., A flexible and fast PyTorch toolkit for simulating training and inference on analog
    crossbar arrays (aihwkit), AICAS 2021: its forward pass without noise and bound management.
    """

    input_bits: int = 7
    output_bits: int | None = 8
    output_bound: float = 12.0
    weight_noise: float = 0.05
    output_noise: float = 0.05
    input_format: str = "signed"
    input_scale: float | str = "max"

    def __post_init__(self):
        if self.output_bits is not None:
            check.integer(2, 16, output_bits=self.output_bits)
        check.finite_positive(output_bound=self.output_bound)
        check.non_negative(weight_noise=self.weight_noise, output_noise=self.output_noise)
        check.not_infinite(weight_noise=self.weight_noise, output_noise=self.output_noise)
        _ = self.steps  # what is shared with the crossbar is checked there

    @property
    def steps(self) -> CrossbarSpec:
        """How inputs become codes, as crossbars do it."""
        return CrossbarSpec(
            input_bits=self.input_bits, input_format=self.input_format, input_scale=self.input_scale, adc_bits=None
        )


class NoisyWeights(NamedTuple):
    """A chip: weights in parts of the largest."""

    held: Float[Array, " k n"]
    """With the noise of this chip."""
    largest: Float[Array, ""]
    weights: Float[Array, " k n"]
    """What was to be held; only the straight-through gradient reads it."""


def functional(spec: FunctionalSpec | None = None, **changes: Any) -> Device:
    """A hardware-aware layer as a device, for training that costs little more than a dense network.

    Straight-through gradients, as through any device. Measure on `crossbar` or `capram`; this has no cost to report.

    Args:
        spec: its numbers, by default `FunctionalSpec()`.
        **changes: fields of the spec to replace.

    Raises:
        ValueError: for an unknown field or a number out of its range.

    Example:
        >>> from modicum.analog.simulate import simulate
        >>> layer = simulate(lambda w, x: x @ w, functional(weight_noise=0.0, output_noise=0.0, output_bits=None))
        >>> layer(jax.random.key(0), jnp.array([[2.0], [-1.0]]), jnp.array([127.0, 64.0]))
        Array([190.], dtype=float32)
    """
    chosen = changed("functional", FunctionalSpec() if spec is None else spec, changes)
    return Device(chosen, _hold, _read, _no_cost)


def _no_cost(site: Any, spec: FunctionalSpec, activity: Any = None) -> Any:
    del spec, activity
    raise ValueError(f"device of site {site.name} must be a crossbar or a macro to have a cost, got a functional layer")


@partial(jax.jit, static_argnames="spec")
def _hold(key: Key, weights: Float[Array, " k n"], spec: FunctionalSpec) -> NoisyWeights:
    weights = weights.astype(jnp.float32)
    held = lax.stop_gradient(weights)
    largest = jnp.max(jnp.abs(held))
    largest = jnp.where(largest > 0, largest, 1.0)
    return NoisyWeights(held / largest + noise(key, spec.weight_noise, held), largest, weights)


def noise(key: Key, deviation: float, like: Array) -> Array:
    """Normal noise of the shape of an array; a zero where there is none."""
    if deviation == 0:
        return jnp.zeros((), like.dtype)
    return deviation * jax.random.normal(key, (like.size,), like.dtype).reshape(like.shape)


def _read(key: Key, chip: NoisyWeights, inputs: Float[Array, " *b k"], spec: FunctionalSpec) -> Float[Array, " *b n"]:
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    return _straight_through(spec, chip.weights, flat, chip, key).reshape(*inputs.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(spec: FunctionalSpec, weights: Array, inputs: Array, chip: NoisyWeights, key: Key) -> Array:
    del weights
    codes, step = converters.quantize_inputs(inputs, spec.steps)
    full = spec.steps.input_levels
    total = (codes.astype(jnp.float32) * (1.0 / full)) @ chip.held
    total = total + noise(key, spec.output_noise, total)
    if spec.output_bits is not None:
        levels = 2 ** (spec.output_bits - 1) - 1
        rounded = jnp.clip(jnp.round(total * (levels / spec.output_bound)), -levels, levels)
        total = rounded * (spec.output_bound / levels)
    return total * (chip.largest * step * full)


def _forward(
    spec: FunctionalSpec, weights: Array, inputs: Array, chip: NoisyWeights, key: Key
) -> tuple[Array, tuple[Array, Array]]:
    return _straight_through(spec, weights, inputs, chip, key), (weights, inputs)


def _backward(
    spec: FunctionalSpec, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array, None, None]:
    return *converters.straight_through(*residuals, cotangent, spec.steps), None, None


_straight_through.defvjp(_forward, _backward)
