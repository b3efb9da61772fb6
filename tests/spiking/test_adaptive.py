"""Trained leaks, adaptive thresholds and Izhikevich's neuron: loops in float64, closed forms, the paper's cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.spiking.adaptive import AdaptiveLIF, AlifParams, AlifState, ParametricLIF, alif
from modicum.spiking.izhikevich import Izhikevich, IzhikevichState
from modicum.spiking.populations import LIF
from modicum.spiking.smooth_surrogates import Arctan
from tests.spiking.reference import izhikevich_reference, lif_reference, run, spike_times


def test_parametric_leak():
    rng = np.random.default_rng(2)
    currents = jnp.asarray(rng.normal(0.2, 0.4, (30, 8)), jnp.float32)
    neuron = ParametricLIF(leak=0.8, surrogate=Arctan(), detach_reset=True)
    params = neuron.init_params()
    assert float(jax.nn.sigmoid(params["raw_leak"])) == pytest.approx(0.8)
    _, spikes = run(neuron, params, neuron.init_state((8,)), currents)
    np.testing.assert_array_equal(spikes, lif_reference(np.asarray(currents), 0.8, 1.0, "soft")[1])

    # below the threshold, with reset detached, no surrogate matters: V_T = sum leak^(T - t) I_t, derived by hand
    weak = jnp.abs(currents[:6]) / 20

    def last(params):
        return run(neuron, params, neuron.init_state((8,)), weak)[0].membrane_potential[-1].sum()

    ages = np.arange(5, -1, -1)
    want = sum(age * 0.8 ** (age - 1) * np.asarray(weak[5 - age], np.float64).sum() for age in ages[:-1]) * 0.8 * 0.2
    assert float(jax.jit(jax.grad(last))(params)["raw_leak"]) == pytest.approx(want, rel=1e-4)


def test_adaptive_threshold():
    rng = np.random.default_rng(3)
    currents = rng.uniform(0, 0.7, (60, 9)).astype(np.float32)
    for reset in ("soft", "hard"):
        neuron = AdaptiveLIF(0.9, 1.0, beta=0.3, rho=0.95, reset=reset)
        state, spikes = run(neuron, (), neuron.init_state((9,)), jnp.asarray(currents))
        potentials, fired = lif_reference(currents, 0.9, 1.0, reset, beta=0.3, rho=0.95)
        np.testing.assert_array_equal(spikes, fired)
        np.testing.assert_allclose(state.membrane_potential, potentials, atol=1e-5)
    intervals = np.diff(spike_times(AdaptiveLIF(beta=0.3, reset="hard"), 0.5, 200))
    assert (np.diff(intervals[:4]) >= 0).all()
    assert intervals[-1] > intervals[0]
    same = spike_times(AdaptiveLIF(beta=0.0), 0.3, 100)
    np.testing.assert_array_equal(same, spike_times(LIF(), 0.3, 100))


def test_adaptation_is_seen_by_gradients():
    """A spike now makes one in a later step less likely, also if the reset is detached."""
    params, state = AlifParams(0.0, 1.0, 0.5, 1.0), AlifState(jnp.zeros(()), jnp.zeros(()))

    def later(current):
        after, _ = alif(params, state, current, detach_reset=True)
        return alif(params, after, jnp.float32(1.2), detach_reset=True)[1]

    assert float(jax.jit(jax.grad(later))(jnp.float32(1.1))) == -0.5


CELLS = {
    "regular": {},
    "bursting": {"c": -55.0, "d": 4.0},
    "chattering": {"c": -50.0, "d": 2.0},
    "fast": {"a": 0.1, "d": 2.0},
}


def test_izhikevich_matches_a_loop():
    rng = np.random.default_rng(6)
    for cell in CELLS.values():
        neuron = Izhikevich(**cell, dt=0.25)
        numbers = (neuron.a, neuron.b, neuron.c, neuron.d, neuron.dt)
        # single steps from anywhere: over many, float32 and float64 drift apart
        v, u, current = rng.uniform([-90, -20, -10], [29, 20, 30], (500, 3)).T
        state, spikes = neuron.step((), IzhikevichState(jnp.float32(v), jnp.float32(u)), jnp.float32(current))
        want = [izhikevich_reference(*numbers, [c], *start) for *start, c in zip(v, u, current, strict=True)]
        np.testing.assert_allclose(state.membrane_potential, [after for after, _, _ in want], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.recovery, [after for _, after, _ in want], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(spikes, [len(times) for _, _, times in want])
        times = izhikevich_reference(*numbers, np.full(800, 10.0), -65.0, -65.0 * neuron.b)[2]
        assert len(times) >= 4
        np.testing.assert_array_equal(spike_times(neuron, 10.0, 800)[:4], times[:4])


def test_izhikevich_cells_fire_as_in_the_paper():
    # without current 0.04 v^2 + (5 - b) v + 140 = 0 has the roots -70 and -50 mV for b = 0.2: the lower one is at rest
    state, spikes = run(Izhikevich(), (), Izhikevich().init_state((1,)), jnp.zeros((4000, 1)))
    assert not np.asarray(spikes).any()
    assert float(state.membrane_potential[-1, 0]) == pytest.approx(-70.0, abs=0.05)
    assert float(state.recovery[-1, 0]) == pytest.approx(-14.0, abs=0.05)
    # the rest point ceases to exist at 4, loses its stability just below, and is stable at 3
    assert not len(spike_times(Izhikevich(), 3.0, 2000))
    assert len(spike_times(Izhikevich(), 4.5, 4000)) >= 4

    regular, fast, chattering = (
        spike_times(Izhikevich(**CELLS[cell]), 10.0, 2000) for cell in ("regular", "fast", "chattering")
    )
    intervals = np.diff(regular)
    assert intervals[0] < intervals[2]  # spike frequency adaptation
    assert np.ptp(intervals[3:]) <= 3  # then tonic
    assert 10 <= len(regular) <= 40  # Hz, for one second of 0.5 ms steps
    assert len(fast) > 2 * len(regular)
    assert np.diff(chattering).max() > 5 * np.diff(chattering).min()  # bursts and pauses
