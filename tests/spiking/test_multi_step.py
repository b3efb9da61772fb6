"""One switch: every mode gives the values and the gradients of autodiff, bit for bit where it says so."""

import functools
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import spiking
from modicum.spiking import Carry, Convolution, Dense, FixedPointLIF, Layer

STEPS, BATCH = 7, 3
EXACT = ("packed", "reversible", "reversible_standard")
NEURONS = {
    "carry": Carry(),
    "ternary carry": Carry(lowest=-1),
    "detached carry": Carry(detach_reset=True),
    "carry, arctan": Carry(surrogate=spiking.Arctan()),
    "fixed point": FixedPointLIF(),
    "fixed point, arctan": FixedPointLIF(shift=2, surrogate=spiking.Arctan()),
    "LIF": spiking.LIF(leak=0.875),
    "LIF, hard": spiking.LIF(leak=0.5, reset="hard", detach_reset=True),
    "IF, staircase": spiking.IF(surrogate=spiking.Staircase()),
}


def network(neuron, hidden=2, **settings):
    settings = {"grid_bits": 10, "gain": 2.0, **settings}
    layers = (
        Layer(Convolution(features=4, bias=True, **settings), neuron),
        Layer(Dense(features=6, pool=2, standardize=True, **settings), neuron),
    )
    return (*layers[:hidden], Layer(Dense(features=3, bias=True, **settings)))


def problem(neuron, key, **settings):
    layers = network(neuron, **settings)
    events = jax.random.bernoulli(key, 0.3, (STEPS, BATCH, 8, 8, 2)).astype(jnp.float32)
    return layers, jax.jit(spiking.init, static_argnums=(1, 2))(key, layers, (8, 8, 2)), events


def loss(layers, params, events, mode="autodiff", order="time", **options):
    outputs, states = spiking.multi_step(layers, params, events, residuals=mode, order=order, **options)
    remains = sum(jnp.sum(leaf) for state in states for leaf in jax.tree.leaves(state))
    return jnp.sum(jax.nn.logsumexp(outputs.mean(0), -1)) + 0.125 * remains


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def gradients(layers, params, events, mode, order):
    return jax.value_and_grad(functools.partial(loss, layers, mode=mode, order=order), argnums=(0, 1))(params, events)


def assert_same_bits(found, expected):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(left, right)


def assert_close(found, expected, tolerance=1e-5):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def fits(neuron, mode):
    return neuron.packable if mode == "packed" else mode in ("autodiff", "remat", "sqrt") or hasattr(neuron, "invert")


@pytest.mark.optimized
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS.keys())
def test_gradients_by_time(neuron, key):
    # layers after layers are tried with two neurons
    layers, params, events = problem(neuron, key, hidden=2 if neuron in (Carry(), spiking.LIF(leak=0.875)) else 1)
    expected = gradients(layers, params, events, "autodiff", "time")
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(expected))
    dyadic = not isinstance(getattr(neuron, "surrogate", None), spiking.Arctan)
    # the modes that JAX does all by itself are tried with one neuron
    for mode in (*(("remat", "sqrt") if neuron == Carry() else ()), *EXACT):
        if fits(neuron, mode):
            found = gradients(layers, params, events, mode, "time")
            exact = mode in EXACT and dyadic
            (assert_same_bits if exact else assert_close)(found, expected)


@pytest.mark.parametrize("neuron", [Carry(), spiking.LIF(leak=0.5)], ids=["carry", "LIF"])
def test_gradients_by_layer(neuron, key):
    layers, params, events = problem(neuron, key)
    expected = gradients(layers, params, events, "autodiff", "layer")
    # sums over all steps at once: how they are grouped is up to the compiler
    for mode in ("packed", "remat"):
        assert_close(gradients(layers, params, events, mode, "layer"), expected, 1e-6)
    # the other order sums the same numbers in another order
    assert_close(gradients(layers, params, events, "autodiff", "time"), expected)


@pytest.mark.parametrize("mode", EXACT)
def test_one_input_for_all_steps(mode, key):
    layers, params, events = problem(Carry(), key)

    def once(params, image, mode, order):
        return loss(layers, params, image, mode, order, steps=STEPS)

    def repeated(params, image):
        return loss(layers, params, jnp.broadcast_to(image[None], events.shape))

    gradient = jax.jit(jax.value_and_grad(once, argnums=(0, 1)), static_argnums=(2, 3))
    expected = jax.jit(jax.value_and_grad(repeated, argnums=(0, 1)))(params, events[0])
    assert_close(gradient(params, events[0], mode, "time"), expected)
    if mode == "packed":
        assert_close(gradient(params, events[0], mode, "layer"), expected)


@pytest.mark.optimized
@pytest.mark.parametrize("mode", EXACT)
def test_whole_numbers_as_inputs(mode, key):
    layers, params, events = problem(Carry(), key, hidden=1)
    gradient = jax.jit(jax.grad(functools.partial(loss, layers, mode=mode)))
    assert_same_bits(gradient(params, events.astype(jnp.uint8)), gradient(params, events))


@pytest.mark.parametrize("mode", EXACT)
def test_under_vmap_and_scan(mode, key):
    layers, params, events = problem(Carry(), key)
    many = jnp.stack([events, events[::-1]])
    grad = jax.jit(jax.grad(functools.partial(loss, layers, mode=mode)))
    one_by_one = [grad(params, events), grad(params, events[::-1])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert_close(jax.jit(jax.vmap(grad, in_axes=(None, 0)))(params, many), stacked)
    _, scanned = jax.lax.scan(lambda carry, events: (carry, grad(params, events)), 0, many)
    assert_close(scanned, stacked)


@pytest.mark.optimized
def test_states_go_on_where_they_were(key):
    layers, params, events = problem(Carry(), key)
    outputs, states = spiking.multi_step(layers, params, events, residuals="reversible")
    first, middle = spiking.multi_step(layers, params, events[:3], residuals="packed")
    second, last = spiking.multi_step(layers, params, events[3:], middle, residuals="autodiff")
    assert_same_bits((jnp.concatenate([first, second]), last), (outputs, states))


def test_any_function_is_a_synapse(key):
    """One without `init` or `pull`, and no linear one; JAX differentiates it."""

    def synapse(weights, spikes):
        return jnp.tanh(jnp.dot(spikes, weights)) * 2

    layers = (Layer(synapse, Carry()), Layer(synapse, Carry()), Layer(synapse))
    params = tuple({"synapse": jax.random.normal(k, (8, 8)), "neuron": ()} for k in jax.random.split(key, 3))
    events = jax.random.normal(key, (STEPS, BATCH, 8))
    expected = gradients(layers, params, events, "autodiff", "time")
    for mode in EXACT:
        assert_close(gradients(layers, params, events, mode, "time"), expected)


def test_against_finite_differences(key):
    """The loss is smooth in the last layer's weights, whatever the spikes do."""
    layers, params, events = problem(Carry(), key, grid_bits=None)
    direction = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), params[-1]["synapse"])

    @jax.jit
    def moved(size):
        last = jax.tree.map(lambda leaf, way: leaf + size * way, params[-1]["synapse"], direction)
        return loss(layers, (*params[:-1], {"synapse": last, "neuron": ()}), events)

    gradient = jax.jit(jax.grad(functools.partial(loss, layers, mode="reversible")))(params, events)[-1]["synapse"]
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert slope == pytest.approx(float(moved(0.02) - moved(-0.02)) / 0.04, rel=2e-2)


def test_convolution_pulls_back_as_jax_does(key):
    # with eight channels or more all taps are one product
    for pool, kernel, channels, features in ((1, 3, 3, 7), (2, 5, 3, 7), (1, 1, 9, 8), (1, 3, 8, 11), (2, 5, 10, 9)):
        synapse = Convolution(features=features, kernel=kernel, pool=pool, bias=True)
        weights = synapse.init(key, (8, 6, channels))
        spikes = jax.random.normal(key, (64, 8, 6, channels))
        cotangent = jax.random.normal(key, jax.eval_shape(synapse, weights, spikes).shape)
        expected = jax.jit(lambda w, x, c, synapse=synapse: jax.vjp(synapse, w, x)[1](c))(weights, spikes, cotangent)
        assert_close(jax.jit(synapse.pull)(weights, spikes, cotangent), expected, 2e-4)
        assert synapse.pull(weights, spikes, cotangent, False)[1] is None


def test_large_batches_are_cut_to_fit_the_cache(key, monkeypatch):
    synapse = Convolution(features=4)
    weights, spikes = synapse.init(key, (8, 8, 3)), jax.random.normal(key, (12, 8, 8, 3))
    cotangent = jax.random.normal(key, (12, 8, 8, 4))
    whole = jax.jit(synapse.pull)(weights, spikes, cotangent)
    monkeypatch.setattr("modicum.spiking.convolutions._IN_CACHE", 1000)
    assert_close(jax.jit(lambda *arguments: synapse.pull(*arguments))(weights, spikes, cotangent), whole)


def test_standardized_weights_have_no_mean(key):
    synapse = Dense(features=5, standardize=True, gain=1.5)
    kernel = synapse.prepare(synapse.init(key, (40,)))["kernel"]
    np.testing.assert_allclose(kernel.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose((kernel**2).sum(0), 1.5**2, rtol=1e-4)


def normalized_over_time(weights, spikes):
    current = jnp.dot(spikes, weights)
    return (current - current.mean((0, 1), keepdims=True)) / (current.std((0, 1), keepdims=True) + 1e-3)


def test_a_synapse_may_look_over_time_layer_by_layer(key):
    layers = (Layer(normalized_over_time, spiking.LIF(), over_time=True), Layer(Dense(features=3)))
    params = (
        {"synapse": jax.random.normal(key, (8, 16)), "neuron": ()},
        {"synapse": Dense(features=3).init(key, (16,)), "neuron": ()},
    )
    events = jax.random.normal(key, (STEPS, BATCH, 8))
    expected = gradients(layers, params, events, "autodiff", "layer")
    assert_close(gradients(layers, params, events, "packed", "layer"), expected)
    with pytest.raises(ValueError, match="order must be 'layer' where a synapse looks over time, as that of layer 0"):
        spiking.multi_step(layers, params, events)


def test_sharded_over_eight_devices(tmp_path):
    """Batches spread over eight devices give the gradients of one, up to the order of their sum."""
    script = textwrap.dedent("""
        import functools, jax, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from tests.spiking.test_multi_step import EXACT, gradients, problem
        from modicum.spiking import Carry
        assert len(jax.devices()) == 8
        layers, params, events = problem(Carry(), jax.random.key(0))
        events = jax.numpy.concatenate([events] * 8, axis=1)
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        spread = jax.device_put(events, NamedSharding(mesh, PartitionSpec(None, "batch")))
        for mode in EXACT:
            value, found = gradients(layers, params, spread, mode, "time")
            expected_value, expected = gradients(layers, params, events, mode, "time")
            np.testing.assert_allclose(value, expected_value, rtol=1e-5)
            for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    """)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda run, x: run(x[:0]), r"inputs must have shape \(steps, batch, ...\) with at least 1 step"),
        (lambda run, x: run(x[0], steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda run, x: run(x, residuals="reversed"), "residuals must be one of 'autodiff'"),
        (lambda run, x: run(x, order="depth"), "order must be one of 'time', 'layer'"),
        (lambda run, x: run(x.at[1, 0, 2].set(jnp.nan)), "inputs must be finite, got 16 NaN"),
        (lambda run, x: run(x, residuals="sqrt", order="layer"), "residuals must be 'autodiff', 'remat' or 'packed'"),
        (lambda run, x: run(x, states=()), "states must hold one entry for each of 3 layers"),
    ],
)
def test_bad_input(call, sentence, key):
    layers, params, events = problem(Carry(), key)
    with pytest.raises(ValueError, match=sentence):
        call(functools.partial(spiking.multi_step, layers, params), events)


def test_neurons_that_do_not_fit_a_mode(key):
    layers, params, events = problem(spiking.LIF(surrogate=spiking.Arctan()), key)
    with pytest.raises(ValueError, match=r"needs neurons with an exact inverse, got LIF in layer 0: take Carry"):
        spiking.multi_step(layers, params, events, residuals="reversible")
    with pytest.raises(ValueError, match=r"needs neurons whose derivatives fit a few bits, got LIF in layer 0"):
        spiking.multi_step(layers, params, events, residuals="packed")
    with pytest.raises(ValueError, match="params must hold one entry for each"):
        spiking.multi_step(layers, params[:2], events)
    with pytest.raises(ValueError, match="inverse must be a function, got None: a step without an exact inverse"):
        spiking.reversible(lambda p, s, x: (s, s), None)
