"""Projections of shares: linear in the ring, norms estimated, boosted vectors left out."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from modicum.federated import FixedPointSpec, RefusedError, SeflSpec, ciphers, encode, mask_words, sefl, sefl_norm

SIZE, KEYS = 5000, [ciphers.digest(b"identity", bytes([at])) for at in range(3)]
SPEC = SeflSpec(
    round_id=1,
    dimension=SIZE,
    identities=tuple(ciphers.verify_key(key) for key in KEYS),
    provider_key=ciphers.public_key(bytes(range(32))),
    fixed_point=FixedPointSpec(clients=3, clip=8.0, fraction_bits=20),
    least=2,
)
KEY = sefl_norm.sign_key(SPEC, bytes(32), b"\x01" * 32)


def shares_of(ring, client):
    mask = mask_words(ciphers.digest(b"mask", bytes([client])), ring.size)
    return sefl_norm.projections(ring + mask, KEY), sefl_norm.projections(mask, KEY)


def test_projections_by_hand():
    share = np.random.default_rng(0).integers(0, 2**32, SIZE, dtype=np.uint32)
    chunks = -(-SIZE // 4096)
    words = mask_words(KEY, 2 * chunks * 4 * 4096).reshape(chunks, 2, 4, 4096)
    bits = np.stack([(words >> np.uint32(at)) & 1 for at in range(32)], axis=3).astype(np.int64)
    both = np.moveaxis(bits[:, 0] - bits[:, 1], 0, 2)  # word, bit, chunk, entry
    signs = both.reshape(128, -1)[:, :SIZE]
    expected = (signs @ share.astype(np.int64)) % 2**32
    np.testing.assert_array_equal(sefl_norm.projections(share, KEY), expected.astype(np.uint32))
    assert abs(signs.mean()) < 0.01
    assert (signs == 0).mean() == pytest.approx(0.5, abs=0.01)


def test_large_vectors_are_left_out():
    rng = np.random.default_rng(1)
    bound, unit = 2.0, rng.normal(size=SIZE)
    unit *= bound / np.linalg.norm(unit)
    spike = np.zeros(SIZE)
    spike[17] = 7.9
    wrapped = np.full(SIZE, 2**31, np.uint32)
    uniform = rng.integers(0, 2**32, SIZE, dtype=np.uint32)
    honest = [unit, -unit, 0.1 * unit, np.zeros(SIZE)]
    boosted = [2 * unit, 100 * unit, spike]
    rings = [np.asarray(encode(SPEC.fixed_point, jnp.asarray(x, jnp.float32)).ring) for x in (*honest, *boosted)]
    rings += [wrapped, uniform]
    pairs = [shares_of(ring, at) for at, ring in enumerate(rings)]
    estimate = sefl_norm.norm_estimate(SPEC, *pairs[0])
    assert estimate == pytest.approx(bound, rel=0.3)
    masked, masks = ({at: pair[side] for at, pair in enumerate(pairs)} for side in range(2))
    assert sefl_norm.accepted(SPEC, bound, masked, masks) == (0, 1, 2, 3)


def test_signs_without_zeros_would_let_half_of_the_ring_through():
    """2^31 is its own negative: an even number of such entries has the projection 0 under any signs of +-1."""
    signs = np.random.default_rng(0).choice([-1, 1], (128, SIZE))
    assert not ((signs * 2**31).sum(axis=1) % 2**32).any()


def test_a_round_leaves_a_boosted_client_out():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, SIZE))
    values *= np.array([1.0, 10.0, 0.9])[:, None] / np.linalg.norm(values, axis=1, keepdims=True)
    rings = np.asarray(encode(SPEC.fixed_point, jnp.asarray(values, jnp.float32)).ring)
    sent = []
    for at in range(3):
        client = sefl.client_init(SPEC, at, KEYS[at], rings[at])
        sent.append(sefl.client_step(SPEC, client, (), bytes([at]) * 32)[1]["aggregator"])
    state, _ = sefl.aggregator_step(SPEC, sefl.AggregatorState(), sent)
    state, out = sefl.aggregator_step(SPEC, state, ())
    message = sefl_norm.aggregator_project(SPEC, out["provider"], sent, KEY)
    provider = sefl.ProviderState(bytes(range(32)))
    opened, out = sefl_norm.provider_check(SPEC, provider, message, 1.0, KEY)
    assert out["aggregator"].survivors == (0, 2)
    state = sefl_norm.leave_out(SPEC, state, [sent[1]])
    state, _ = sefl.aggregator_step(SPEC, state, [out["aggregator"]])
    np.testing.assert_array_equal(state.total, rings[0] + rings[2])
    with pytest.raises(RefusedError, match="no such vector of client 1 in its sum"):
        sefl_norm.leave_out(SPEC, state, [sent[1]])
    with pytest.raises(RefusedError, match="one set of survivors of round 1"):
        sefl_norm.provider_check(SPEC, opened, message, 1.0, KEY)
    with pytest.raises(RefusedError, match="seeds of 1 clients, fewer than the least number 2"):
        sefl_norm.provider_check(SPEC, provider, message, 0.62, KEY)
    with pytest.raises(RefusedError, match="projections of other clients"):
        sefl_norm.provider_check(SPEC, provider, replace(message, projections={}), 1.0, KEY)


def test_error_rates():
    """Chi-square of 128 degrees: the docstring's probabilities."""
    degrees = sefl_norm.PROJECTIONS
    assert stats.chi2.sf(degrees * 1.5**2, degrees) < 1e-9
    assert stats.chi2.cdf(degrees * (1.5 / 2) ** 2, degrees) < 2e-5


def test_bounds_that_do_not_fit():
    with pytest.raises(ValueError, match="bound must be at most 227"):
        sefl_norm.accepted(SPEC, 1000.0, {}, {})
    with pytest.raises(ValueError, match="provider must be 32 bytes, got 3"):
        sefl_norm.sign_key(SPEC, bytes(32), b"abc")
