"""A spiking network on simulated chips: first the step is rewritten, then it is made reversible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import analog, core, spiking, train

DEVICE = analog.crossbar(fragment=9, weight_bits=6, sigma=0.1, adc_bits=6)
CONVOLUTION = spiking.Convolution(features=8, grid_bits=10, standardize=True, gain=2.0)
HEAD = spiking.Dense(features=10, pool=2)


def on_chip(synapse, weights, spikes):
    """What the chip that `weights["key"]` names computes in place of the synapse; one chip for all time steps."""
    rest = {name: value for name, value in weights.items() if name != "key"}
    return analog.simulate(synapse, DEVICE)(weights["key"], rest, spikes)


LAYERS = (
    spiking.Layer(functools.partial(on_chip, CONVOLUTION), spiking.Carry()),
    spiking.Layer(functools.partial(on_chip, HEAD)),
)


@jax.jit
def parameters(key):
    return {"convolution": CONVOLUTION.init(key, (8, 8, 1)), "head": HEAD.init(key, (8, 8, 8))}


def logits(params, images, chip, residuals):
    keys = jax.random.split(chip)
    weights = (
        {"synapse": CONVOLUTION.prepare(params["convolution"]) | {"key": keys[0]}, "neuron": ()},
        {"synapse": HEAD.prepare(params["head"]) | {"key": keys[1]}, "neuron": ()},
    )
    return spiking.multi_step(LAYERS, weights, images, residuals=residuals, steps=4)[0].mean(0)


@pytest.mark.parametrize("residuals", ["packed", "reversible", "reversible_standard"])
def test_gradients_on_a_chip(residuals, key):
    params, images = parameters(key), jax.random.normal(key, (3, 8, 8, 1))

    def loss(params, images, key, residuals):
        return jnp.sum(jax.nn.logsumexp(logits(params, images, key, residuals), -1))

    gradient = jax.jit(jax.grad(loss), static_argnums=3)
    found, expected = (gradient(params, images, key, mode) for mode in (residuals, "autodiff"))
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert float(jnp.abs(right).max()) > 0
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_chips_differ_and_keys_name_them(key):
    params, images = parameters(key), jax.random.normal(key, (3, 8, 8, 1))
    chips = jax.random.split(key, 3)
    of_chip = jax.jit(lambda chip: logits(params, images, chip, "reversible"))
    out = jax.jit(jax.vmap(of_chip))(chips)
    assert float(jnp.abs(out[0] - out[1]).max()) > 1e-3
    np.testing.assert_allclose(out[2], of_chip(chips[2]), rtol=1e-4, atol=1e-5)


def test_training_on_noisy_chips_learns():
    digits, held_out = train.load("digits", "train"), train.load("digits", "test")

    def loss_fn(params, batch):
        images, labels = batch
        # another chip for each batch: a network for chips, not for one chip
        chip = jax.random.fold_in(jax.random.key(3), labels.sum())
        out = logits(params, images, chip, "reversible")
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    optimizer = optax.adam(5e-3)
    batches = train.batches(digits.arrays, jax.random.key(1), 64)
    state = train.init_state(parameters(jax.random.key(0)), optimizer)
    state = train.fit(state, train.make_train_step(loss_fn, optimizer), batches, 120)
    out = jax.jit(logits, static_argnums=3)(state.params, held_out.inputs, jax.random.key(99), "reversible")
    assert float((out.argmax(-1) == held_out.labels).mean()) > 0.85


def test_any_rewritten_step_is_made_reversible(key):
    """`reversible(rewrite(step, rule), rewrite(inverse, rule))`: the same, without layers."""

    def current(params, x):
        return spiking.dyadic(jnp.dot(x, params), 10)

    def step(params, state, x):
        return state + current(params, x), (state >= 0.5).astype(jnp.float32)

    def inverse(params, state, x, y):
        del y
        return state - current(params, x)

    doubled = functools.partial(core.rewrite, rule=lambda site, w, x: 2 * site.apply(w, x))
    run = spiking.reversible(doubled(step), doubled(inverse))
    params, inputs = jax.random.normal(key, (5, 4)), jax.random.normal(key, (6, 3, 5))
    start = jnp.zeros((3, 4))
    expected = jax.grad(lambda p: jnp.sum(jax.lax.scan(functools.partial(doubled(step), p), start, inputs)[0] ** 2))
    found = jax.grad(lambda p: jnp.sum(run(p, start, inputs)[0] ** 2))
    np.testing.assert_allclose(found(params), expected(params), rtol=1e-5, atol=1e-5)
