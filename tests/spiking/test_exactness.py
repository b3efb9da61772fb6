"""Inverses that are inverses, for any number of steps and blocks; where they are not, how far off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum import spiking

STEPS = 4096
NEURONS = {
    "carry": spiking.Carry(),
    "ternary carry": spiking.Carry(lowest=-1),
    "graded carry": spiking.Carry(lowest=-3, highest=5, surrogate=spiking.Arctan()),
    "leak 1/2": spiking.FixedPointLIF(shift=1, limit=6.0),
    "leak 3/4": spiking.FixedPointLIF(shift=2),
    "leak 7/8": spiking.FixedPointLIF(shift=3),
    "leak 15/16": spiking.FixedPointLIF(shift=4, limit=1.9, surrogate=spiking.Arctan()),
}


def there_and_back(neuron, key, steps=STEPS, size=64):
    currents = 1.5 * jax.random.normal(key, (steps, size)) + 0.2

    def forward(stored, current):
        state, spikes, ledger = neuron.forward((), neuron.load(stored), current)
        return neuron.store(state), (stored, spikes, ledger)

    def back(stored, slice_):
        current, ledger = slice_
        state, residual = neuron.invert((), neuron.load(stored), current, ledger)
        return neuron.store(state), (neuron.store(state), neuron.spikes(residual))

    start = neuron.store(neuron.init_state((size,)))
    last, (before, spikes, ledgers) = jax.lax.scan(forward, start, currents)
    first, (recovered, spikes_again) = jax.lax.scan(back, last, (currents, ledgers), reverse=True)
    return start, first, before, recovered, spikes, spikes_again


@pytest.mark.optimized
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS.keys())
def test_the_inverse_is_exact_over_thousands_of_steps(neuron, key):
    start, first, before, recovered, spikes, spikes_again = jax.jit(there_and_back, static_argnums=0)(neuron, key)
    assert jax.tree.leaves(before)[0].dtype in (jnp.uint16, jnp.int16)
    for there, again in ((start, first), (before, recovered), (spikes, spikes_again)):
        for left, right in zip(jax.tree.leaves(there), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(left, right)
    # the run is no trivial one
    assert 0.02 < float(jnp.mean(jnp.abs(spikes))) < 3


@pytest.mark.optimized
def test_carry_is_addition_of_16_bit_numbers(key):
    """Against whole numbers in NumPy: the state is the sum modulo 2**16, spikes are the carries."""
    neuron = spiking.Carry()
    currents = jax.random.uniform(key, (300, 50), minval=-0.2, maxval=1.2)
    whole = np.round(np.clip(np.asarray(currents), 0, 1).astype(np.float64) * 2**16).astype(np.int64)
    state, spikes = jax.lax.scan(lambda s, c: neuron.step((), s, c), neuron.init_state((50,)), currents)
    totals = 2**15 + np.cumsum(whole, 0)
    np.testing.assert_array_equal(neuron.store(state).membrane_potential, totals[-1] % 2**16)
    np.testing.assert_array_equal(spikes, np.diff(totals // 2**16, axis=0, prepend=0))


@pytest.mark.optimized
@given(st.integers(1, 8), st.integers(-(2**15) + 600, 2**15 - 600))
def test_the_ledger_of_any_potential(shift, units):
    bits = 0
    neuron = spiking.FixedPointLIF(shift=shift, fraction_bits=bits, limit=(2.0**15 - 1) / 2**shift)
    state = neuron.load(type(neuron.init_state(()))(jnp.array(units, jnp.int16)))
    current = jnp.array(3.0)
    after, spikes, ledger = neuron.forward((), state, current)
    leaked = units - (units >> shift) + 3
    assert float(spikes) == (leaked >= 1)
    assert float(after.membrane_potential) == leaked - (leaked >= 1)
    before, _ = neuron.invert((), after, current, ledger)
    assert float(before.membrane_potential) == units


def test_potentials_stay_within_16_bits_at_the_largest_currents():
    neuron = spiking.FixedPointLIF(shift=3, fraction_bits=10, limit=3.8)
    for sign in (1.0, -1.0):
        currents = jnp.full((400, 1), sign * 100)
        state, _ = jax.lax.scan(lambda s, c: neuron.step((), s, c), neuron.init_state((1,)), currents)
        assert abs(float(state.membrane_potential[0])) * 2**10 < 2**15
        assert float(neuron.load(neuron.store(state)).membrane_potential[0]) == float(state.membrane_potential[0])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: spiking.Carry(lowest=-100, highest=100), "highest - lowest must be at most 63"),
        (lambda: spiking.Carry(highest=0), "highest must be a whole number of at least 1, got 0"),
        (lambda: spiking.FixedPointLIF(limit=5.0), "limit must be at most"),
        (lambda: spiking.FixedPointLIF(shift=0), "shift must be a whole number of at least 1"),
        (lambda: spiking.TwoGroup(alpha=0.0), "alpha must not be 0"),
        (lambda: spiking.TwoGroup(tau=0.5), "tau must be at least 1"),
    ],
)
def test_settings_that_cannot_be(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def pair(key, steps, size=200):
    first, second = jax.random.split(key)
    return spiking.Pair(jax.random.normal(first, (steps, size)), jax.random.normal(second, (steps, size)))


def test_drift_of_the_float_node_explodes(key):
    """The paper's node multiplies what it rounded: usable for a few steps, useless after some dozens."""
    node = spiking.TwoGroup(alpha=0.5, beta=0.5)
    drift = spiking.drift(node, pair(key, 32))
    assert float(drift[0]) < 1e-5
    assert float(drift[3]) < 1e-2
    assert not float(drift[-1]) < 1


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_two_group_against_its_equations(reset, key):
    """Equations 1-6 in NumPy, float64."""
    node = spiking.TwoGroup(alpha=0.7, beta=0.9, tau=3.0, reset=reset)
    inputs = pair(key, 6, 40)
    state, outputs = spiking.two_group(node)(node.init_state((40,)), inputs)
    x1, x2 = (np.asarray(part, np.float64) for part in inputs)
    v1, v2 = np.zeros(40), np.zeros(40)

    def fired(charged):
        spikes = (charged >= 1).astype(float)
        return spikes, (1 - spikes) * charged if reset == "hard" else charged - spikes

    for t in range(6):
        spikes, rest = fired(v1 + (x1[t] - v1) / 3)
        y1, u1 = spikes + 0.9 * x2[t], rest + 0.7 * v2
        spikes, rest = fired(u1 + (y1 - u1) / 3)
        y2, u2 = spikes + 0.9 * x1[t], rest + 0.7 * v1
        np.testing.assert_allclose(outputs.first[t], y1, atol=1e-5)
        np.testing.assert_allclose(outputs.second[t], y2, atol=1e-5)
        v1, v2 = u1, u2
    np.testing.assert_allclose(state.first, v1, atol=1e-5)
    np.testing.assert_allclose(state.second, v2, atol=1e-5)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("surrogate", [spiking.Boxcar(), spiking.Arctan()])
def test_two_group_gradients(reset, surrogate, key):
    node = spiking.TwoGroup(reset=reset, surrogate=surrogate)
    inputs, start = pair(key, 5), spiking.Pair(jnp.full(200, 0.3), jnp.full(200, -0.2))

    def loss(run, inputs, start):
        state, outputs = run(start, inputs)
        return sum(jnp.sum(jnp.sin(part)) for part in (*state, *outputs))

    def plain(start, inputs):
        return jax.lax.scan(lambda s, x: node.step((), s, x), start, inputs)

    expected = jax.grad(loss, argnums=(1, 2))(plain, inputs, start)
    for streamlined in (True, False):
        found = jax.grad(loss, argnums=(1, 2))(spiking.two_group(node, streamlined=streamlined), inputs, start)
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(left, right, rtol=2e-3, atol=2e-3)


def grid_branch(params, streams):
    """Whole spikes through weights on a grid: `conv(LIF(.))` without the convolution."""
    return spiking.dyadic(0.3 * jnp.dot((streams >= 0.5).astype(jnp.float32), spiking.dyadic(params, 12)), 12)


def float_branch(params, streams):
    return 0.3 * jnp.dot((streams >= 0.5).astype(jnp.float32), params)


@pytest.mark.optimized
@pytest.mark.parametrize("blocks", [1, 64])
def test_coupled_blocks_run_backward_exactly_on_a_grid(blocks, key):
    keys = jax.random.split(key, 4)
    params = tuple(jax.random.normal(k, (blocks, 24, 24)) / 5 for k in keys[:2])
    streams = spiking.Streams(*(spiking.dyadic(jax.random.normal(k, (8, 24)), 12) for k in keys[2:]))
    last = spiking.reversible_sequence(grid_branch, grid_branch, params, streams)

    def back(streams, own):
        return spiking.uncoupled(grid_branch, grid_branch, own, streams), None

    first = jax.lax.scan(back, last, params, reverse=True)[0]
    for left, right in zip(first, streams, strict=True):
        np.testing.assert_array_equal(left, right)


def smooth_branch(params, streams):
    return jnp.tanh(jnp.dot(streams, params["kernel"]))


@pytest.mark.parametrize("backward", ["streamlined", "standard"])
def test_coupled_gradients(backward, key):
    keys = jax.random.split(key, 4)
    params = tuple({"kernel": jax.random.normal(k, (9, 6, 6)) / 3} for k in keys[:2])
    streams = spiking.Streams(*(jax.random.normal(k, (5, 6)) for k in keys[2:]))

    def loss(params, streams, backward):
        out = spiking.reversible_sequence(smooth_branch, smooth_branch, params, streams, backward=backward)
        return jnp.sum(out.first**2) + jnp.sum(jnp.sin(out.second))

    expected = jax.grad(loss, argnums=(0, 1))(params, streams, "autodiff")
    found = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(params, streams, backward)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


def test_coupled_blocks_need_no_more_memory_when_deeper(key):
    def peak(blocks):
        params = tuple({"kernel": jnp.zeros((blocks, 16, 16))} for _ in range(2))
        streams = spiking.Streams(jnp.zeros((4096, 16)), jnp.zeros((4096, 16)))

        def loss(streams):
            return sum(map(jnp.sum, spiking.reversible_sequence(smooth_branch, smooth_branch, params, streams)))

        return spiking.peak_bytes(jax.grad(loss), streams)

    assert peak(64) <= 1.02 * peak(4)


def test_blocks_that_cannot_be_coupled(key):
    streams = spiking.Streams(jnp.zeros((2, 6)), jnp.zeros((2, 6)))
    params = ({"kernel": jnp.zeros((3, 6, 6))},) * 2
    with pytest.raises(ValueError, match="g must keep shape"):
        spiking.reversible_sequence(smooth_branch, lambda p, x: x[:1], params, streams)
    uneven = (params[0], {"kernel": jnp.zeros((2, 6, 6))})
    with pytest.raises(ValueError, match="params must have leaves with a leading axis"):
        spiking.reversible_sequence(smooth_branch, smooth_branch, uneven, streams)
    with pytest.raises(ValueError, match="backward must be one of"):
        spiking.reversible_sequence(smooth_branch, smooth_branch, params, streams, backward="fast")
