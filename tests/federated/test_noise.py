"""Discrete Gaussian noise: the right scale is accepted and a wrong one rejected."""

import math

import numpy as np
import pytest
from scipy import stats

from modicum.federated import discrete_gaussian, privacy_loss

COUNT = 40_000


def p_value(samples, sigma):
    """Chi-square of the samples against the exact probabilities, tails lumped together."""
    tail = math.ceil(6 * sigma) + 2
    numbers = np.arange(-tail, tail + 1)
    probabilities = np.exp(-(numbers**2) / (2 * sigma**2))
    probabilities /= probabilities.sum()
    counts = np.bincount(np.clip(samples, -tail, tail) + tail, minlength=numbers.size)
    common = probabilities * COUNT >= 5
    observed = [*counts[common], counts[~common].sum()]
    expected = [*probabilities[common] * COUNT, probabilities[~common].sum() * COUNT]
    return stats.chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.7, 60.0])
def test_scale(sigma):
    samples = discrete_gaussian(bytes(31) + b"\x01", COUNT, sigma)
    assert samples.dtype == np.int32
    assert p_value(samples, sigma) > 1e-3
    numbers = np.arange(-1000, 1001)
    probabilities = np.exp(-(numbers**2) / (2 * sigma**2))
    variance = (numbers**2 * probabilities).sum() / probabilities.sum()
    # the estimate of a variance scatters by about sqrt(2 / n); more where the distribution has few values
    scatter = 4 * math.sqrt(3 / COUNT)
    assert abs(np.mean(samples.astype(float) ** 2) / variance - 1) < scatter
    for wrong in (0.96, 1.04):
        assert abs(np.mean((wrong * samples) ** 2) / variance - 1) > scatter
        assert sigma > 10 or p_value(samples, wrong * sigma) < 1e-4
    # rounded continuous noise is another distribution where the scale is small
    rounded = np.rint(np.random.default_rng(0).normal(0, sigma, COUNT)).astype(int)
    assert sigma > 1 or p_value(rounded, sigma) < 1e-6


def test_keys():
    first, again = (discrete_gaussian(bytes(32), 1000, 5.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != discrete_gaussian(bytes(31) + b"\x02", 1000, 5.0)).mean() > 0.8
    assert not discrete_gaussian(bytes(32), 10, 0.0).any()
    assert discrete_gaussian(bytes(32), 0, 1.0).shape == (0,)
    assert discrete_gaussian(bytes(32), 1000, 2.0**24).std() == pytest.approx(2.0**24, rel=0.1)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"sigma must lie from 0\.0 to 16777216\.0, got -1"):
        discrete_gaussian(bytes(32), 1, -1.0)
    with pytest.raises(ValueError, match="key must be 32 bytes, got 3"):
        discrete_gaussian(b"key", 1, 1.0)
    with pytest.raises(ValueError, match=r"delta must be below 1, got 1\.0$"):
        privacy_loss(1.0, 1.0, 1.0)


def test_privacy_loss():
    """rho = 1/2: epsilon = 0.5 + 2 sqrt(0.5 log 1e5); four rounds at twice the noise cost the same."""
    assert privacy_loss(1.0, 1.0, 1e-5) == pytest.approx(0.5 + 2 * math.sqrt(0.5 * math.log(1e5)))
    assert privacy_loss(2.0, 1.0, 1e-5, rounds=4) == pytest.approx(privacy_loss(1.0, 1.0, 1e-5))
