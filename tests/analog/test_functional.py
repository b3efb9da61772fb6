"""The functional layer: the dense product where nothing errs, its noise and its rounding where they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import functional, report, simulate

QUIET = {"weight_noise": 0.0, "output_noise": 0.0, "output_bits": None}


def product(weights, inputs):
    return inputs @ weights


@pytest.fixture(scope="module")
def problem():
    first, second = jax.random.split(jax.random.key(2))
    return jax.random.normal(first, (40, 30)), jax.random.normal(second, (200, 40))


def test_without_noise_it_is_the_product_of_rounded_inputs(problem):
    weights, inputs = (np.asarray(array, np.float64) for array in problem)
    got = jax.jit(simulate(product, functional(input_bits=5, **QUIET)))(jax.random.key(0), *problem)
    step = np.abs(inputs).max() / 31
    np.testing.assert_allclose(np.asarray(got), np.rint(inputs / step) * step @ weights, rtol=1e-4, atol=1e-4)


def test_outputs_lie_on_the_converters_levels(problem):
    weights, inputs = problem
    changes = {**QUIET, "output_bits": 4, "output_bound": 1.0}
    got = np.asarray(simulate(product, functional(**changes))(jax.random.key(0), weights, inputs), np.float64)
    full = float(jnp.abs(weights).max()) * float(jnp.abs(inputs).max())
    levels = got / full * 7
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert levels.min() == pytest.approx(-7, abs=1e-4)
    assert levels.max() == pytest.approx(7, abs=1e-4)


def test_noise_is_of_the_stated_size_and_the_weights_noise_is_the_chips(problem):
    weights, inputs = problem
    full = float(jnp.abs(weights).max()) * float(jnp.abs(inputs).max())
    exact = jax.jit(simulate(product, functional(**QUIET)))(jax.random.key(0), weights, inputs)
    noisy = jax.jit(simulate(product, functional(**{**QUIET, "output_noise": 0.3})))
    deviation = float(jnp.std(noisy(jax.random.key(1), weights, inputs) - exact)) / full
    assert deviation == pytest.approx(0.3, rel=0.05)
    assert deviation != pytest.approx(0.4, rel=0.05)
    device = functional(**{**QUIET, "weight_noise": 0.1})
    chip = device.program(jax.random.key(2), weights, device.spec)
    scaled = np.asarray(chip.held - weights / jnp.abs(weights).max())
    assert scaled.std() == pytest.approx(0.1, rel=0.1)
    reads = [np.asarray(device.read(jax.random.key(seed), chip, inputs, device.spec)) for seed in (0, 1)]
    np.testing.assert_array_equal(*reads)


def test_gradients_are_the_dense_ones(problem):
    weights, inputs = problem
    layer = simulate(product, functional())

    def gradients(fun):
        return jax.grad(lambda w, x: jnp.sum(fun(w, x)), argnums=(0, 1))(weights, inputs)

    for mine, dense in zip(gradients(lambda w, x: layer(jax.random.key(0), w, x)), gradients(product), strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(dense), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused(problem):
    with pytest.raises(ValueError, match="output_bits must be"):
        functional(output_bits=1)
    with pytest.raises(ValueError, match="input_bits must be"):
        functional(input_bits=0)
    with pytest.raises(ValueError, match="must be a crossbar or a macro to have a cost"):
        report(product, functional(), *problem)
