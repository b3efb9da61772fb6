"""Fixed point: exact round trips, a budget that holds, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.federated import FixedPointSpec, decode, decode_exact, encode, ring_sum

pytestmark = pytest.mark.optimized

SPEC = FixedPointSpec(clients=100, clip=8.0, fraction_bits=20)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"clients": 0}, "clients must be a whole number of at least 1, got 0"),
        ({"clients": 256}, r"clients must be at most 255 for clip 8.0 and fraction_bits 20.*got 256"),
        ({"clip": -1.0}, "clip must be above 0, got -1.0"),
        ({"clip": float("inf")}, "clip must lie from one step .*got inf"),
        ({"clip": 1e-9}, "clip must lie from one step"),
        ({"fraction_bits": 31}, "fraction_bits must be a whole number of at least 0 and at most 30, got 31"),
    ],
)
def test_budget_is_checked_when_built(numbers, message):
    with pytest.raises(ValueError, match=message):
        FixedPointSpec(**{"clients": 3, "clip": 8.0, "fraction_bits": 20, **numbers})


@settings(max_examples=30)
@given(st.lists(st.integers(-(2**23), 2**23), min_size=8, max_size=8))
def test_steps_survive_exactly(steps):
    values = jnp.array(steps, jnp.float32) * jnp.float32(SPEC.step)
    encoded = encode(SPEC, {"a": values})
    assert encoded.ring["a"].dtype == jnp.uint32
    np.testing.assert_array_equal(np.asarray(encoded.ring["a"]).view(np.int32), steps)
    np.testing.assert_array_equal(decode(SPEC, encoded.ring)["a"], values)
    np.testing.assert_array_equal(decode_exact(SPEC, encoded.ring)["a"], np.asarray(values, np.float64))
    assert int(encoded.clipped) == int(encoded.non_finite) == 0


@settings(max_examples=30)
@given(st.lists(st.floats(-20, 20, width=32), min_size=8, max_size=8))
def test_rounds_to_the_nearest_step_and_clips(numbers):
    values = np.array(numbers, np.float32)
    encoded = encode(SPEC, jnp.asarray(values))
    expected = np.clip(values.astype(np.float64), -8, 8)
    assert np.abs(decode_exact(SPEC, encoded.ring) - expected).max() <= SPEC.step / 2
    assert int(encoded.clipped) == int((np.abs(values) > 8).sum())


@pytest.mark.parametrize(("clients", "clip", "bits"), [(255, 8.0, 20), (1, 2.0**31 - 1, 0), (3, 0.1, 30), (7, 0.3, 29)])
def test_extreme_sums_do_not_wrap(clients, clip, bits):
    spec = FixedPointSpec(clients=clients, clip=clip, fraction_bits=bits)
    ones = jnp.full((clients, 2), jnp.inf) * jnp.array([[1.0, -1.0]])
    encoded = jax.jit(lambda x: encode(spec, x))(ones)
    total = np.asarray(ring_sum(encoded.ring)).view(np.int32)
    np.testing.assert_array_equal(total, np.array([1, -1]) * clients * spec.limit)
    assert int(encoded.clipped) == int(encoded.non_finite) == 2 * clients


def test_non_finite_values_are_refused_outside_and_flagged_inside_jit():
    values = {"w": jnp.array([1.0, jnp.nan, jnp.inf])}
    with pytest.raises(ValueError, match=r"values\['w'\] must be finite, got 2 NaN"):
        encode(SPEC, values)
    encoded = jax.jit(lambda x: encode(SPEC, x))(values)
    np.testing.assert_array_equal(decode(SPEC, encoded.ring)["w"], [1, 0, 8])
    assert (int(encoded.clipped), int(encoded.non_finite)) == (1, 2)
    with pytest.raises(ValueError, match="values must be an array of floats, got dtype int32"):
        encode(SPEC, jnp.array([1], jnp.int32))


def test_short_and_long_floats_and_x64():
    numbers = np.array([0.5, -3.25, 7.999], np.float64)
    expected = np.round(numbers * 2**20).astype(np.int64)
    with jax.enable_x64(True):
        encoded = encode(SPEC, jnp.asarray(numbers))
        stacked = ring_sum(jnp.stack([encoded.ring, encoded.ring]))
        assert encoded.ring.dtype == stacked.dtype == jnp.uint32
        assert encoded.clipped.dtype == jnp.int32
        assert decode(SPEC, stacked).dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(encoded.ring).view(np.int32), expected)
    np.testing.assert_array_equal(np.asarray(stacked).view(np.int32), 2 * expected)
    short = jnp.asarray(numbers, jnp.bfloat16)
    np.testing.assert_array_equal(decode_exact(SPEC, encode(SPEC, short).ring), np.asarray(short, np.float64))


def test_vmap_over_clients():
    values = jax.random.normal(jax.random.key(0), (4, 3))
    mapped = jax.vmap(lambda x: encode(SPEC, x).ring)(values)
    np.testing.assert_array_equal(mapped, encode(SPEC, values).ring)
