"""Ours, piece by piece: a dense product or gradient and the simulated one, in turns in one process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from analog_bench.timing import timed
from modicum import analog, constraints

SIZE, BATCH = 512, 256
"""Of the linear layer; the convolution is 64 -> 64 channels, 3 x 3, on 16 images of 32 x 32."""


def _linear() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(SIZE, SIZE)) / SIZE**0.5, jnp.float32)
    return _polarized(weights), jnp.asarray(rng.uniform(size=(BATCH, SIZE)), jnp.float32)


def _polarized(weights: Any) -> Any:
    """With one sign per fragment of 8 rows, which FORMS' encoding can hold."""
    return constraints.Polarized(8).project(weights)


def _call(fun: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    compiled = jax.jit(fun)
    return lambda: jax.block_until_ready(compiled(*args))


def _compared(dense: Callable[[], Any], simulated: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Both in turns, a third of the repeats at a time."""
    rounds = [(timed(dense, max(repeats // 3, 1)), timed(simulated, max(repeats // 3, 1))) for _ in range(3)]
    best = [min((pair[place] for pair in rounds), key=lambda one: one["cpu_ms"]) for place in (0, 1)]
    return {"dense": best[0], "simulated": best[1], "ratio": round(best[1]["cpu_ms"] / best[0]["cpu_ms"], 2)}


def apply(repeats: int) -> dict[str, Any]:
    """A programmed, compiled chip read exactly at every converter: fragments of 8 rows, 8-bit inputs, varied cells."""
    weights, inputs = _linear()
    spec = analog.CrossbarSpec(encoding="polarized", sigma=0.1, input_format="unsigned", weight_scale="max")
    key = jax.random.key(0)
    chip = analog.program(key, weights, spec)
    compiled = analog.compile_chip(chip, spec)
    codes, _ = analog.quantize_inputs(inputs[:16], spec)
    np.testing.assert_array_equal(
        np.asarray(analog.compiled_integers(compiled, codes)),
        np.asarray(analog.integer_product(chip, codes, spec, "direct")),
    )
    entry = _compared(
        _call(lambda w, x: x @ w, weights, inputs),
        _call(lambda c, x: analog.read_compiled(key, c, x), compiled, inputs),
        repeats,
    )
    entry["compilation"] = timed(lambda: jax.block_until_ready(analog.compile_chip(chip, spec).prepared), 3)
    return {**entry, "path": compiled.path, "why": compiled.why}


def _convolution() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)) / 24, jnp.float32)
    return _polarized(kernel), jnp.asarray(rng.uniform(size=(16, 32, 32, 64)), jnp.float32)


def _conv(kernel: Any, images: Any) -> Any:
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _gradients(fun: Callable[..., Any]) -> Callable[..., Any]:
    return jax.value_and_grad(lambda w, x: jnp.sum(jnp.square(fun(w, x))), argnums=(0, 1))


def training_step(repeats: int) -> dict[str, Any]:
    """Value and both gradients of a convolution on a chip that is programmed anew in every step, read by read."""
    kernel, images = _convolution()
    device = analog.crossbar(encoding="polarized", sigma=0.1, input_format="unsigned", weight_scale="max")
    chip = analog.simulate(_conv, device)
    key = jax.random.key(0)
    on_chip = _gradients(lambda w, x: chip(key, w, x))
    # straight through: the gradient is the dense one at what the chip's output makes of the cotangent
    value, back = jax.vjp(_conv, kernel, images)
    output = chip(key, kernel, images)
    expected = back(2 * output)
    for mine, theirs in zip(on_chip(kernel, images)[1], expected, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=2e-3, atol=2e-3 * float(theirs.max()))
    difference = float(jnp.linalg.norm(output - value) / jnp.linalg.norm(value))
    assert difference < 0.5, f"the chip's convolution is {difference} off"
    entry = _compared(_call(_gradients(_conv), kernel, images), _call(on_chip, kernel, images), repeats)
    return {**entry, "relative_difference_of_outputs": difference}


def _layer(fun: Callable[..., Any], weights: Any, inputs: Any, repeats: int) -> dict[str, Any]:
    chip = analog.simulate(fun, analog.functional())
    quiet = analog.functional(input_bits=16, output_bits=None, weight_noise=0.0, output_noise=0.0)
    np.testing.assert_allclose(
        np.asarray(analog.simulate(fun, quiet)(jax.random.key(0), weights, inputs)),
        np.asarray(fun(weights, inputs)),
        atol=1e-2,
    )
    key = jax.random.key(0)
    forward = _compared(_call(fun, weights, inputs), _call(lambda w, x: chip(key, w, x), weights, inputs), repeats)
    both = _compared(
        _call(_gradients(fun), weights, inputs),
        _call(_gradients(lambda w, x: chip(key, w, x)), weights, inputs),
        repeats,
    )
    return {"forward": forward, "forward and backward": both}


def linear_layer(repeats: int) -> dict[str, Any]:
    """A hardware-aware layer, 512 x 512 at batch 256, as one product."""
    return _layer(lambda w, x: x @ w, *_linear(), repeats)


def convolutional_layer(repeats: int) -> dict[str, Any]:
    """The same as a convolution."""
    return _layer(_conv, *_convolution(), max(repeats // 3, 1))


def chips(repeats: int) -> dict[str, Any]:
    """100 chips with varied and stuck cells, each programmed and read at every converter."""
    del repeats
    weights, inputs = _linear()
    spec = analog.CrossbarSpec(
        encoding="polarized", sigma=0.1, stuck_off=0.01, stuck_on=0.001, input_format="unsigned", weight_scale="max"
    )

    def one(key: Any, weights: Any, inputs: Any) -> Any:
        return analog.read(key, analog.program(key, weights, spec), inputs, spec)

    def spread(keys: Any, weights: Any, inputs: Any) -> Any:
        outputs = lax.map(lambda key: one(key, weights, inputs), keys)
        return jnp.mean(outputs, axis=0), jnp.std(outputs, axis=0)

    keys = jax.random.split(jax.random.key(0), 100)
    mean, deviation = jax.jit(spread)(keys[:4], weights, inputs)
    apart = np.stack([one(key, weights, inputs) for key in keys[:4]])
    np.testing.assert_allclose(np.asarray(mean), apart.mean(0), atol=1e-4)
    np.testing.assert_allclose(np.asarray(deviation), apart.std(0), atol=1e-4)
    run = jax.jit(spread)
    return {"chips": 100, **timed(lambda: jax.block_until_ready(run(keys, weights, inputs)), 1)}


def rows_128(repeats: int) -> dict[str, Any]:
    """Whole crossbars of 128 rows, every bit and cell converted to 9 bits: what CrossSim's ISAAC does, at 8 bits."""
    weights, inputs = _linear()
    spec = analog.CrossbarSpec(
        fragment=128, adc_bits=9, adc_mode="clip", encoding="offset", input_format="unsigned", weight_scale="max"
    )
    key = jax.random.key(0)
    chip = analog.program(key, weights, spec)
    entry: dict[str, Any] = {}
    codes, _ = analog.quantize_inputs(inputs, spec)
    levels, _ = analog.quantize_weights(weights, spec)
    exact = np.asarray(codes, np.int64) @ np.asarray(levels, np.int64)
    for path in ("fold", "packed"):
        compiled = analog.compile_chip(chip, spec, path)
        np.testing.assert_array_equal(np.asarray(analog.compiled_integers(compiled, codes))[0], exact)
        call = _call(lambda c, x: analog.read_compiled(key, c, x), compiled, inputs)
        entry[path] = {**_compared(_call(lambda w, x: x @ w, weights, inputs), call, repeats), "why": compiled.why}
    return entry


PARTS = {
    "apply": apply,
    "training step": training_step,
    "linear layer": linear_layer,
    "convolutional layer": convolutional_layer,
    "chips": chips,
    "128 rows": rows_128,
}
