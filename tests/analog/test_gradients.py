"""Straight-through: the gradient of the clipped float product, under jit, grad and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import CrossbarSpec, program, read

SPECS = {
    "varied": CrossbarSpec(fragment=4, weight_bits=4, input_bits=4, adc_bits=3, sigma=0.2),
    "folded": CrossbarSpec(weight_bits=4, adc_bits=None, sigma=0.1),
    "polarized": CrossbarSpec(encoding="polarized", adc_bits=3),
    "direct": CrossbarSpec(fragment=16, weight_bits=4, input_bits=4, adc_bits=4, sigma=0.2),
}


def chip_product(spec):
    def product(key, weights, inputs):
        programming, reading = jax.random.split(key)
        return read(reading, program(programming, weights, spec), inputs, spec)

    return jax.jit(product)


def operands(key):
    first, second, third = jax.random.split(key, 3)
    weights = jax.random.normal(first, (20, 5))
    inputs = jax.random.normal(second, (6, 20))
    return weights, inputs, jax.random.normal(third, (6, 5))


@pytest.mark.parametrize("name", SPECS)
def test_gradient_is_the_dense_one(key, name):
    weights, inputs, cotangent = operands(key)
    product = chip_product(SPECS[name])
    forward, backward = jax.vjp(lambda w, x: product(key, w, x), weights, inputs)
    assert np.abs(np.asarray(forward - inputs @ weights)).max() > 1e-3
    to_weights, to_inputs = backward(cotangent)
    w, x, g = (np.asarray(a, np.float64) for a in (weights, inputs, cotangent))
    np.testing.assert_allclose(to_weights, x.T @ g, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_inputs, g @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("input_format", "lowest"), [("signed", -1.5), ("unsigned", 0.0)])
def test_saturated_inputs_pass_no_gradient(key, input_format, lowest):
    spec = CrossbarSpec(input_bits=4, input_scale=0.1, input_format=input_format)
    weights, inputs, cotangent = operands(key)
    inputs = inputs.at[0, :3].set(jnp.array([1.5, -1.5, 40.0]))
    _, backward = jax.vjp(lambda w, x: chip_product(spec)(key, w, x), weights, inputs)
    to_weights, to_inputs = backward(cotangent)
    w, x, g = (np.asarray(a, np.float64) for a in (weights, inputs, cotangent))
    inside = (np.asarray(inputs) >= np.float32(lowest)) & (np.asarray(inputs) <= np.float32(1.5))
    assert 0 < inside.sum() < inside.size
    np.testing.assert_allclose(to_inputs, np.where(inside, g @ w.T, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_weights, np.clip(x, lowest, 1.5).T @ g, rtol=1e-5, atol=1e-5)


def test_dynamic_unsigned_range_is_half_open(key):
    spec = CrossbarSpec(input_format="unsigned")
    weights, inputs, cotangent = operands(key)
    to_inputs = jax.grad(lambda x: jnp.vdot(cotangent, chip_product(spec)(key, weights, x)))(inputs)
    np.testing.assert_array_equal(np.asarray(to_inputs)[np.asarray(inputs) < 0], 0)
    dense = np.asarray(cotangent @ weights.T)
    np.testing.assert_allclose(np.asarray(to_inputs)[np.asarray(inputs) > 0], dense[np.asarray(inputs) > 0], rtol=1e-4)


@pytest.mark.parametrize("name", ["varied", "direct"])
def test_vmap_over_keys_is_a_loop(key, name):
    weights, inputs, _ = operands(key)
    product = chip_product(SPECS[name])
    keys = jax.random.split(key, 3)
    together = jax.vmap(product, in_axes=(0, None, None))(keys, weights, inputs)
    apart = jnp.stack([product(k, weights, inputs) for k in keys])
    np.testing.assert_array_equal(np.asarray(together), np.asarray(apart))
    assert np.abs(np.asarray(together[0] - together[1])).max() > 1e-3


def test_vmap_over_inputs_weights_and_both(key):
    product = chip_product(SPECS["varied"])
    weights, inputs, _ = operands(key)
    many = jnp.stack([inputs, 2 * inputs[::-1]])
    together = jax.vmap(product, in_axes=(None, None, 0))(key, weights, many)
    np.testing.assert_array_equal(together, jnp.stack([product(key, weights, x) for x in many]))
    stacked = jnp.stack([weights, -weights])
    together = jax.vmap(product, in_axes=(None, 0, None))(key, stacked, inputs)
    np.testing.assert_array_equal(together, jnp.stack([product(key, w, inputs) for w in stacked]))
    keys = jax.random.split(key, 2)
    nested = jax.vmap(lambda k: jax.vmap(lambda x: product(k, weights, x))(many))(keys)
    np.testing.assert_array_equal(nested, jnp.stack([jnp.stack([product(k, weights, x) for x in many]) for k in keys]))


def test_grad_and_vmap_commute(key):
    weights, inputs, cotangent = operands(key)
    product = chip_product(SPECS["varied"])
    keys = jax.random.split(key, 3)

    def loss(w, k):
        return jnp.sum(jnp.square(product(k, w, inputs) - cotangent))

    inner = jax.vmap(jax.grad(loss), in_axes=(None, 0))(weights, keys).sum(axis=0)
    outer = jax.jit(jax.grad(lambda w: jax.vmap(loss, in_axes=(None, 0))(w, keys).sum()))(weights)
    np.testing.assert_allclose(inner, outer, rtol=1e-5, atol=1e-4)
    # by hand: the backward product is dense, its cotangent comes from the chip
    residual = sum(2 * (np.asarray(product(k, weights, inputs)) - np.asarray(cotangent)) for k in keys)
    np.testing.assert_allclose(inner, np.asarray(inputs).T @ residual, rtol=1e-4, atol=1e-4)


def test_bfloat16_inputs_are_read_in_float32(key):
    weights, inputs, _ = operands(key)
    product = chip_product(SPECS["folded"])
    low = inputs.astype(jnp.bfloat16)
    np.testing.assert_array_equal(product(key, weights, low), product(key, weights, low.astype(jnp.float32)))
    gradient = jax.grad(lambda x: product(key, weights, x).sum())(low)
    assert gradient.dtype == jnp.bfloat16
