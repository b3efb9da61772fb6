"""Neurons against loops in float64, closed forms of their firing, and the contract of their bundles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.spiking.adaptive import AdaptiveLIF, AlifParams, AlifState, ParametricLIF, PlifParams, alif, plif
from modicum.spiking.izhikevich import Izhikevich, IzhikevichParams, IzhikevichState, izhikevich
from modicum.spiking.neurons import IfParams, LifParams, LifState, integrate_and_fire, lif
from modicum.spiking.populations import IF, LIF
from modicum.spiking.smooth_surrogates import Arctan, Sigmoid
from modicum.spiking.surrogates import Boxcar
from tests.spiking.reference import lif_gradient_reference, lif_reference, run, spike_times

RESETS = [("soft", False), ("soft", True), ("hard", False), ("hard", True)]
NEURONS = [IF(), LIF(), ParametricLIF(), AdaptiveLIF(), Izhikevich()]
named = pytest.mark.parametrize("neuron", NEURONS, ids=lambda neuron: type(neuron).__name__)


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("neuron", [IF(threshold=0.75), LIF(0.875, 1.5)], ids=["IF", "LIF"])
def test_matches_a_loop(neuron, reset):
    neuron = dataclasses.replace(neuron, reset=reset)
    leak = getattr(neuron, "leak", 1.0)
    # on a grid no sum is rounded, so that no spike hangs on a rounding, until the leak has used up the bits
    currents = np.random.default_rng(0).integers(-64, 128, (40, 23)).astype(np.float32) / 128
    state, spikes = run(neuron, (), neuron.init_state((23,)), jnp.asarray(currents))
    potentials, fired = lif_reference(currents, leak, neuron.threshold, reset)
    np.testing.assert_array_equal(spikes, fired)
    np.testing.assert_allclose(state.membrane_potential, potentials, atol=2e-6)
    assert 0.05 < fired.mean() < 0.6


@pytest.mark.parametrize(("reset", "detach"), RESETS)
def test_gradient_matches_a_loop(reset, detach):
    neuron = LIF(0.75, 0.5, reset, detach, Boxcar(0.5))
    rng = np.random.default_rng(1)
    currents, weights = rng.normal(0.2, 0.5, (2, 15, 17)).astype(np.float32)
    loss = lambda currents: (run(neuron, (), neuron.init_state((17,)), currents)[1] * weights).sum()  # noqa: E731
    want = lif_gradient_reference(currents, weights, 0.75, 0.5, reset, detach, height=2.0, width=0.5)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(currents)), want, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(want) > 100


def test_reset_gradients_differ():
    one, other = (
        lif_gradient_reference(np.full((9, 1), 0.6), np.ones((9, 1)), 0.9, 1.0, "soft", detach)
        for detach in (False, True)
    )
    assert np.abs(one - other).max() > 0.1


@given(st.integers(1, 255), st.integers(1, 200))
def test_rate_of_constant_current(current, steps):
    # soft reset without leak: the charge of n spikes has left, so that exactly floor(steps * current) have been
    times = spike_times(IF(), current / 256, 200)
    assert (times < steps).sum() == steps * current // 256


@pytest.mark.parametrize("current", [0.12, 0.15, 0.3, 0.7, 1.1])
def test_period_of_leaky_neurons(current):
    # from 0, u_n = I (1 - leak^n) / (1 - leak): a hard reset makes the first n at which it is 1 the period
    leak = 0.9
    period = int(np.ceil(np.log(1 - (1 - leak) / current) / np.log(leak)))
    times = spike_times(LIF(leak, reset="hard"), current, 100)
    np.testing.assert_array_equal(times, np.arange(period, 101, period) - 1)


def test_too_little_current_never_fires():
    assert not len(spike_times(LIF(0.9), 0.0999, 500))
    state, _ = run(LIF(0.9), (), LIF(0.9).init_state((1,)), jnp.full((500, 1), 0.05))
    assert float(state.membrane_potential[-1, 0]) == pytest.approx(0.05 / (1 - 0.9), rel=1e-5)


@jax.jit
def integrated(threshold, currents):
    """What is left after 20 steps without leak, and spikes."""

    def body(state, current):
        return lif(LifParams(1.0, threshold), state, current)

    return jax.lax.scan(body, LifState(jnp.zeros(())), currents)


@given(st.floats(0.125, 10, width=16), st.lists(st.floats(-20, 20, width=16), min_size=20, max_size=20))
def test_soft_reset_keeps_the_charge(threshold, currents):
    """Charge in is the charge that is left and a threshold per spike."""
    state, spikes = integrated(jnp.float32(threshold), jnp.array(currents, jnp.float32))
    assert state.membrane_potential + threshold * spikes.sum() == pytest.approx(sum(currents), abs=1e-3)


@named
def test_contract_of_bundles(neuron):
    assert hash(dataclasses.replace(neuron)) == hash(neuron)
    params, state = neuron.init_params(), neuron.init_state((2, 3))
    assert all(leaf.shape == (2, 3) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    scale = 30.0 if isinstance(neuron, Izhikevich) else 1.0
    currents = scale * jax.random.uniform(jax.random.key(0), (12, 2, 3))
    cache = run._cache_size()
    _, spikes = run(neuron, params, state, currents)
    again = run(dataclasses.replace(neuron), params, state, currents)
    assert run._cache_size() == cache + 1
    assert spikes.dtype == jnp.float32
    assert set(np.unique(spikes)) == {0.0, 1.0}
    np.testing.assert_array_equal(spikes, again[1])

    def loss(params, currents):
        return run(neuron, params, state, currents)[1].sum()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, currents)
    assert all(np.isfinite(leaf).all() and np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))
    one = jax.jit(jax.vmap(lambda state, current: neuron.step(params, state, current)))(state, currents[0])[1]
    np.testing.assert_array_equal(one, spikes[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        neuron.surrogate = Arctan()


@named
def test_bundles_are_their_steps(neuron):
    current = jax.random.normal(jax.random.key(1), (5,)) + 1
    statics = {"surrogate": neuron.surrogate, "detach_reset": neuron.detach_reset}
    state = neuron.init_state((5,))
    if isinstance(neuron, Izhikevich):
        want = izhikevich(IzhikevichParams(0.02, 0.2, -65.0, 8.0, 0.5), IzhikevichState(*state), current, **statics)
    elif isinstance(neuron, AdaptiveLIF):
        want = alif(AlifParams(0.9, 1.0, 0.2, 0.98), state, current, **statics)
    elif isinstance(neuron, ParametricLIF):
        want = plif(PlifParams(neuron.init_params()["raw_leak"], 1.0), state, current, **statics)
    elif isinstance(neuron, LIF):
        want = lif(LifParams(0.9, 1.0), state, current, **statics)
    else:
        want = integrate_and_fire(IfParams(1.0), state, current, **statics)
    got = neuron.step(neuron.init_params(), state, current)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_parameters_may_be_arrays():
    """One leak and threshold per neuron, trained or not."""

    def spikes(leak, threshold):
        params = LifParams(leak, threshold)
        return lif(params, LifState(jnp.ones(3)), jnp.full(3, 0.4), surrogate=Sigmoid())[1].sum()

    leak, threshold = jnp.array([0.1, 0.5, 0.7]), jnp.array([1.0, 0.9, 1.1])
    assert float(spikes(leak, threshold)) == 2.0
    by_leak, by_threshold = jax.jit(jax.grad(spikes, argnums=(0, 1)))(leak, threshold)
    np.testing.assert_allclose(by_leak, -np.asarray(by_threshold), rtol=1e-5)


BAD = [
    (LIF, "leak", 1.1, "must lie from 0 to 1"),
    (LIF, "leak", -0.1, "must lie from 0 to 1"),
    (LIF, "threshold", 0.0, "must be above 0"),
    (LIF, "threshold", float("inf"), "must be finite"),
    (LIF, "reset", "none", "must be one of 'soft', 'hard'"),
    (IF, "threshold", -1.0, "must be above 0"),
    (IF, "reset", "zero", "must be one of 'soft', 'hard'"),
    (ParametricLIF, "leak", 1, "must lie between 0 and 1, ends excluded"),
    (ParametricLIF, "leak", 0.0, "must lie between 0 and 1, ends excluded"),
    (ParametricLIF, "threshold", float("nan"), "must be a number above 0"),
    (ParametricLIF, "reset", "", "must be one of 'soft', 'hard'"),
    (AdaptiveLIF, "leak", 2.0, "must lie from 0 to 1"),
    (AdaptiveLIF, "rho", -1.0, "must lie from 0 to 1"),
    (AdaptiveLIF, "beta", -0.1, "must not be below 0"),
    (AdaptiveLIF, "beta", float("inf"), "must be finite"),
    (AdaptiveLIF, "threshold", 0, "must be above 0"),
    (AdaptiveLIF, "reset", "x", "must be one of 'soft', 'hard'"),
    (Izhikevich, "a", 0.0, "must be above 0"),
    (Izhikevich, "b", float("inf"), "must be finite"),
    (Izhikevich, "c", 30.0, "must be below 30 mV, where spikes are cut off"),
    (Izhikevich, "d", float("nan"), "must be a number from"),
    (Izhikevich, "dt", 1.5, "must lie from 0 to 1"),
    (Izhikevich, "dt", 0.0, "must be above 0"),
]


@pytest.mark.parametrize(("make", "name", "value", "allowed"), BAD)
def test_bad_numbers_are_named(make, name, value, allowed):
    with pytest.raises(ValueError, match=f"^{name} {allowed}.*, got {value!r}$"):
        make(**{name: value})


@pytest.mark.parametrize("step", [lif, plif, alif, integrate_and_fire])
def test_unknown_reset_is_named(step):
    params = {lif: LifParams(0.9, 1.0), plif: PlifParams(0.0, 1.0), alif: AlifParams(0.9, 1.0, 0.1, 0.9)}
    state = AlifState(jnp.zeros(2), jnp.zeros(2)) if step is alif else LifState(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"^reset must be one of 'soft', 'hard', got 'none'$"):
        step(params.get(step, IfParams(1.0)), state, jnp.zeros(2), reset="none")
