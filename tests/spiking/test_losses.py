"""Losses against float64 formulas, finite differences and what they are for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.spiking.losses import (
    count_mean_squared_error,
    first_spike_cross_entropy,
    first_spike_time,
    membrane_cross_entropy,
    rate_cross_entropy,
    spike_rate_regularizer,
)
from modicum.spiking.populations import LIF
from modicum.spiking.smooth_surrogates import Arctan

RNG = np.random.default_rng(0)
SPIKES = (RNG.uniform(size=(12, 5)) < 0.4).astype(np.float32)
SPIKES[:, 3] = 0
POTENTIALS = RNG.normal(0, 2, (12, 5)).astype(np.float32)


def cross_entropy(logits, label):
    return np.log(np.exp(logits).sum()) - logits[label]


def first(spikes):
    return np.array([next(iter(np.nonzero(column)[0]), len(column)) for column in spikes.T])


# loss, train, and the same in float64 for a label
LABELED = {
    "rate": (rate_cross_entropy, SPIKES, lambda s, label: cross_entropy(s.mean(0), label)),
    "count": (
        lambda s, label: rate_cross_entropy(s, label, scale=12.0),
        SPIKES,
        lambda s, label: cross_entropy(s.sum(0), label),
    ),
    "membrane_mean": (membrane_cross_entropy, POTENTIALS, lambda v, label: cross_entropy(v.mean(0), label)),
    "membrane_max": (
        lambda v, label: membrane_cross_entropy(v, label, over_time="max"),
        POTENTIALS,
        lambda v, label: cross_entropy(v.max(0), label),
    ),
    "mean_squared": (
        count_mean_squared_error,
        SPIKES,
        lambda s, label: np.mean((s.mean(0) - np.where(np.arange(5) == label, 0.8, 0.2)) ** 2),
    ),
    "first_spike": (
        lambda s, label: first_spike_cross_entropy(s, label, temperature=2.0),
        SPIKES,
        lambda s, label: cross_entropy(-first(s) / 2, label),
    ),
}


@pytest.mark.parametrize("name", LABELED)
def test_loss_is_the_formula(name):
    loss, train, reference = LABELED[name]
    labels = jnp.arange(5)
    want = [reference(train.astype(np.float64), label) for label in range(5)]
    np.testing.assert_allclose(jax.jit(jax.vmap(loss, (None, 0)))(train, labels), want, rtol=1e-5)
    # a batch is a vmap over trains and labels; a label that does not exist makes NaN
    trains = jnp.asarray(np.stack([train, train[::-1], train, train]))
    batch = jax.jit(jax.vmap(loss))(trains, jnp.array([0, 1, -1, 5]))
    assert float(batch[1]) == pytest.approx(reference(train[::-1].astype(np.float64), 1), rel=1e-5)
    np.testing.assert_array_equal(np.isnan(batch), [False, False, True, True])


@pytest.mark.parametrize("name", [name for name in LABELED if name != "first_spike"])
def test_gradient_is_a_difference_quotient(name):
    loss, train, reference = LABELED[name]
    got = np.asarray(jax.jit(jax.grad(loss))(train, 1))
    train = train.astype(np.float64)
    for place in itertools.product(range(0, 12, 3), range(5)):
        step = np.zeros_like(train)
        step[place] = 1e-6
        quotient = (reference(train + step, 1) - reference(train - step, 1)) / 2e-6
        assert got[place] == pytest.approx(quotient, abs=1e-5)


def test_first_spike_time_and_its_differences():
    # all trains of 5 steps: the derivative is the difference that flipping that one spike makes
    trains = np.array(list(itertools.product([0.0, 1.0], repeat=5)), np.float32)
    times = jax.vmap(first_spike_time)(jnp.asarray(trains))
    np.testing.assert_array_equal(times, first(trains.T))
    gradients = jax.vmap(jax.grad(first_spike_time))(jnp.asarray(trains))
    for train, gradient in zip(trains, np.asarray(gradients), strict=True):
        for step in range(5):
            set_, cleared = train.copy(), train.copy()
            set_[step], cleared[step] = 1, 0
            assert gradient[step] == first(set_[:, None])[0] - first(cleared[:, None])[0]


def test_first_spike_loss_wakes_a_silent_neuron():
    """Training currents alone makes the right class, at first silent, the first to spike."""
    neuron = LIF(0.9, surrogate=Arctan())
    currents = jnp.array([[0.3, 0.02, 0.25]]) * jnp.ones((15, 1))

    def spikes(currents):
        return jax.lax.scan(lambda state, current: neuron.step((), state, current), neuron.init_state((3,)), currents)[
            1
        ]

    def loss(currents):
        return first_spike_cross_entropy(spikes(currents), 1)

    assert not spikes(currents)[:, 1].any()
    before = float(loss(currents))
    update = jax.jit(lambda currents: currents - 0.05 * jax.grad(loss)(currents))
    for _ in range(60):
        currents = update(currents)
    assert float(loss(currents)) < before / 10
    assert int(first_spike_time(spikes(currents)).argmin()) == 1


def test_regularizer():
    rates = np.array([0.0, 0.25, 0.5, 1.0])
    spikes = jnp.asarray((np.arange(8)[:, None] < 8 * rates).astype(np.float32))
    loss = jax.jit(lambda s: spike_rate_regularizer(s, lowest=0.125, highest=0.5))
    assert float(loss(spikes)) == pytest.approx((0.125**2 + 0.5**2) / 4)
    gradient = np.asarray(jax.grad(loss)(spikes))
    np.testing.assert_allclose(gradient[0], [-2 * 0.125 / 32, 0, 0, 2 * 0.5 / 32], rtol=1e-6)
    assert (gradient == gradient[0]).all()
    assert float(spike_rate_regularizer(spikes)) == 0.0
    images = jnp.ones((3, 4, 5, 2))
    assert float(spike_rate_regularizer(images, highest=0.9)) == pytest.approx(0.01, rel=1e-4)


BAD = [
    (lambda: rate_cross_entropy(jnp.ones((2, 2)), 0, scale=0.0), r"scale must be above 0, got 0\.0"),
    (
        lambda: membrane_cross_entropy(jnp.ones((2, 2)), 0, over_time="sum"),
        "over_time must be one of 'mean', 'max', got 'sum'",
    ),
    (lambda: count_mean_squared_error(jnp.ones((2, 2)), 0, correct=1.2), r"correct must lie from 0 to 1, got 1\.2"),
    (
        lambda: count_mean_squared_error(jnp.ones((2, 2)), 0, incorrect=-1.0),
        r"incorrect must lie from 0 to 1, got -1\.0",
    ),
    (
        lambda: first_spike_cross_entropy(jnp.ones((2, 2)), 0, temperature=-1.0),
        r"temperature must be above 0, got -1\.0",
    ),
    (lambda: spike_rate_regularizer(jnp.ones((2, 2)), lowest=2.0), r"lowest must lie from 0 to 1, got 2\.0"),
    (
        lambda: spike_rate_regularizer(jnp.ones((2, 2)), lowest=0.5, highest=0.4),
        r"highest must lie from 0\.5 to 1, got 0\.4",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
