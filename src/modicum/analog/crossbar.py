"""Read a programmed crossbar, with straight-through gradients."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.analog import converters, products
from modicum.analog.chip import Chip
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key


def read(key: Key, chip: Chip, inputs: Float[Array, " *b k"], spec: CrossbarSpec) -> Float[Array, " *b n"]:
    r"""What the chip computes in place of `inputs @ weights`.

    `y_n = dw dx sum_s 2^s sum_f sign_fn sum_c 2^(c cell_bits) ADC(sum_m bit_s(x)_fm g_cfmn)`, with the weight and
    input steps `dw` and `dx`; differential columns and passes of signed inputs are subtracted alike, offsets taken off.
    The gradient is that of `clip(inputs) @ weights`, where `clip` keeps to the range of the input codes.

    Args:
        key: the noise of these reads; unused where `read_noise` is 0.
        chip: from `program` with the same spec.
        inputs: vectors of rows; leading axes are batch. All of one call share one input step.
        spec: crossbar.

    Example:
        >>> from modicum.analog import program
        >>> spec = CrossbarSpec(weight_bits=4, input_bits=4, adc_bits=None)
        >>> weights = jnp.array([[1.0, -7.0], [3.0, 2.0]])
        >>> chip = program(jax.random.key(0), weights, spec)
        >>> read(jax.random.key(1), chip, jnp.array([15.0, -4.0]), spec)
        Array([   3., -113.], dtype=float32)

    Reference: FORMS, section IV; ISAAC, section V.
    """
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    return _straight_through(spec, chip.weights, flat, chip, key if spec.read_noise > 0 else None).reshape(
        *inputs.shape[:-1], -1
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(spec: CrossbarSpec, weights: Array, inputs: Array, chip: Chip, key: Key | None) -> Array:
    del weights
    codes, step = converters.quantize_inputs(inputs, spec)
    return products.product(chip, codes, spec, key) * (chip.step * step)


def _forward(
    spec: CrossbarSpec, weights: Array, inputs: Array, chip: Chip, key: Key | None
) -> tuple[Array, tuple[Array, Array]]:
    return _straight_through(spec, weights, inputs, chip, key), (weights, inputs)


def _backward(spec: CrossbarSpec, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None, None]:
    return *converters.straight_through(*residuals, cotangent, spec), None, None


_straight_through.defvjp(_forward, _backward)
