"""Spike codes: their statistics, their times and their events against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modicum.spiking.coding import delta_code, direct_code, latency_code, rate_code

unit = st.floats(0, 1, width=32)


def test_rates_are_the_intensities(key):
    intensity, steps = jnp.array([[0.0, 0.1, 0.5], [0.9, 1.0, 0.3]]), 4000
    spikes = rate_code(key, intensity, steps)
    assert spikes.shape == (steps, 2, 3)
    assert spikes.dtype == jnp.float32
    rate, p = np.asarray(spikes).mean(0), np.asarray(intensity)
    sigma = np.sqrt(p * (1 - p) / steps)
    assert (np.abs(rate - p) <= 4.5 * sigma).all()
    # the same test refuses rates that are a tenth off
    assert (np.abs(rate - 0.9 * p) > 4.5 * sigma)[(p > 0.2) & (p < 1)].all()
    # independent over time: neighbors are both set with probability p^2
    both = (np.asarray(spikes)[1:] * np.asarray(spikes)[:-1]).mean(0)
    assert (np.abs(both - p**2) <= 6 * sigma + 1e-9).all()


def test_rate_code_is_a_function_of_key_and_step(key):
    intensity = jnp.linspace(0, 1, 7)
    jitted = jax.jit(rate_code, static_argnums=(2, 3))
    long, short = jitted(key, intensity, 9, jnp.uint8), rate_code(key, intensity, 4)
    assert long.dtype == jnp.uint8
    np.testing.assert_array_equal(long[:4], short)
    np.testing.assert_array_equal(
        long[5], jax.random.bernoulli(jax.random.fold_in(key, 5), intensity).astype(jnp.uint8)
    )
    keys = jnp.stack([key, jax.random.fold_in(key, 99)])
    batch = jax.jit(jax.vmap(lambda key: rate_code(key, intensity, 4)))(keys)
    np.testing.assert_array_equal(batch[0], short)
    assert (np.asarray(batch[0]) != np.asarray(batch[1])).any()


linear = jax.jit(lambda intensity: latency_code(intensity, 11))
logarithmic = jax.jit(lambda intensity: latency_code(intensity, 11, tau=3.0, threshold=0.2, dtype=jnp.uint8))


@given(arrays(np.float32, 5, elements=unit))
def test_latency_is_the_formula(intensity):
    spikes = np.asarray(linear(intensity))
    assert spikes.dtype == np.float32
    for column, x in zip(spikes.T, intensity.astype(np.float64), strict=True):
        fired = np.nonzero(column)[0]
        assert len(fired) == (x > np.float32(0.01))
        if len(fired):
            assert abs(fired[0] - 10 * (1 - x)) <= 0.5 + 1e-5
    spikes = np.asarray(logarithmic(intensity))
    assert spikes.dtype == np.uint8
    for column, x in zip(spikes.T, intensity.astype(np.float64), strict=True):
        fired = np.nonzero(column)[0]
        time = 3 * np.log(x / (x - 0.2)) if x > np.float32(0.2) else np.inf
        assert len(fired) <= 1
        assert len(fired) == (time <= 10.5) or abs(time - 10.5) < 1e-3
        if len(fired):
            assert abs(fired[0] - time) <= 0.5 + 1e-3


@given(unit, unit)
def test_more_is_not_later(one, other):
    weak, strong = sorted((one, other))
    for code in (linear, logarithmic):
        spikes = np.asarray(code(np.float32([weak, strong, 0, 0, 1])))
        when = np.where(spikes.any(0), spikes.argmax(0), 99)
        assert when[1] <= when[0]
        assert when[4] <= when[1]
        assert when[2] == 99


def test_latency_of_images_and_long_trains():
    image = jax.random.uniform(jax.random.key(0), (4, 5))
    spikes = latency_code(image, 7)
    assert spikes.shape == (7, 4, 5)
    by_row = jax.jit(jax.vmap(lambda row: latency_code(row, 7)))(image)
    np.testing.assert_array_equal(by_row, np.moveaxis(np.asarray(spikes), 0, 1))
    assert latency_code(jnp.float32(1), 1).tolist() == [1.0]
    # bfloat16 has no 999: the time is computed in float32
    assert int(latency_code(jnp.array(0.5, jnp.bfloat16), 1999).argmax()) == 999
    assert not latency_code(jnp.array([jnp.nan, -1.0]), 3).any()
    assert latency_code(jnp.array([2.0]), 3)[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_direct_code_repeats():
    values = jnp.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(direct_code(values, 4), np.stack([values] * 4))


def delta_reference(signal, threshold):
    reference, events = signal[0], []
    for value in signal:
        event = [float(value - reference >= threshold), float(reference - value >= threshold)]
        reference = value if any(event) else reference
        events.append(event)
    return np.array(events), reference


coded = jax.jit(lambda signal: delta_code(signal, 0.5))


# multiples of 1/64 make the differences exact
@given(arrays(np.int16, 20, elements=st.integers(-128, 128)))
def test_events_match_a_loop(signal):
    signal = signal.astype(np.float32) / 64
    events = np.asarray(coded(signal))
    want, _ = delta_reference(signal, 0.5)
    np.testing.assert_array_equal(events, want)
    # whoever gets the value at each event knows the signal to within a threshold
    known = signal[0]
    for value, event in zip(signal, events, strict=True):
        known = value if event.any() else known
        assert abs(value - known) < 0.5


def test_slow_drift_makes_events():
    ramp = jnp.arange(33) / 16
    assert np.asarray(coded(ramp)).sum(0).tolist() == [4, 0]
    assert np.asarray(coded(-ramp)).sum(0).tolist() == [0, 4]
    assert not np.asarray(coded(jnp.ones(33))).any()
    frames = jax.random.normal(jax.random.key(1), (6, 3, 4))
    events = delta_code(frames, 0.5, dtype=jnp.uint8)
    assert events.shape == (6, 3, 4, 2)
    assert events.dtype == jnp.uint8
    np.testing.assert_array_equal(events[:, 1, 2], coded(frames[:, 1, 2]))
    assert not (np.asarray(events[..., 0]) & np.asarray(events[..., 1])).any()


@pytest.mark.parametrize("steps", [0, -1, True])
def test_bad_steps_are_named(key, steps):
    x = jnp.ones(2)
    for code in (lambda: rate_code(key, x, steps), lambda: latency_code(x, steps), lambda: direct_code(x, steps)):
        with pytest.raises(ValueError, match=f"^steps must be a whole number of at least 1, got {steps}$"):
            code()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"threshold": -0.1}, r"threshold must lie from 0.* to 1.*, got -0\.1"),
        ({"threshold": 1.5}, r"threshold must lie from 0.* to 1.*, got 1\.5"),
        ({"tau": 0.0}, r"tau must be above 0, got 0\.0"),
        ({"tau": float("inf")}, "tau must be finite, got inf"),
        ({"tau": 1.0, "threshold": 0.0}, r"threshold must be above 0, got 0\.0"),
    ],
)
def test_bad_latency_numbers_are_named(numbers, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        latency_code(jnp.ones(2), 3, **numbers)


@pytest.mark.parametrize(("threshold", "message"), [(0.0, "above 0, got 0.0"), (float("inf"), "finite, got inf")])
def test_bad_event_thresholds_are_named(threshold, message):
    with pytest.raises(ValueError, match=f"^threshold must be {message}$"):
        delta_code(jnp.ones((2, 2)), threshold)
