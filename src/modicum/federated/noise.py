"""Discrete Gaussian noise for differential privacy: whole numbers, so that it can be added inside the ring.

Each of two servers that do not collude adds noise of its own; against either of them, the other's protects.
"""

import math

import numpy as np
from jaxtyping import Int32

from modicum.core import check
from modicum.federated.masks import check_bytes, openssl_words

LARGEST_SIGMA = 2.0**24
"""Up to here samples of more than 30 standard deviations still fit int32."""


class _Stream:
    """Uniform numbers from one ChaCha20 key, in blocks."""

    def __init__(self, key: bytes) -> None:
        self.key, self.counter = key, 0

    def unit(self, count: int) -> np.ndarray:
        """Uniform float64 in `[0, 1)` with all 53 bits."""
        words = openssl_words(self.key, 2 * count, counter=self.counter).reshape(-1, 2).astype(np.uint64)
        self.counter += -(-2 * count // 16)
        return ((words[:, 0] << np.uint64(21)) ^ (words[:, 1] >> np.uint64(11))).astype(np.float64) * 2.0**-53


def discrete_gaussian(key: bytes, count: int, sigma: float) -> Int32[np.ndarray, " count"]:
    """Independent samples of `P(k) ~ exp(-k^2 / (2 sigma^2))` on the whole numbers.

    Rejection from a discrete Laplace distribution of scale `t = floor(sigma) + 1`, as in the reference; its coins are
    compared in float64, so that each probability is off by up to about `2^-52`.

    Args:
        key: 32 secret bytes that serve for this alone.
        count: samples wanted, at least 0.
        sigma: scale in steps, from 0 (no noise) to `2^24`.

    Raises:
        ValueError: for other arguments.
        ImportError: without the extra `federated`.

    Example:
        >>> float(discrete_gaussian(bytes(32), 10_000, 3.0).std()).__round__()
        3

    Reference:
        Canonne, Kamath and Steinke, The Discrete Gaussian for Differential Privacy (NeurIPS 2020), algorithms 2 and 3.
    """
    check_bytes(32, key=key)
    check.integer(0, count=count)
    check.between(0.0, LARGEST_SIGMA, sigma=sigma)
    if sigma == 0:
        return np.zeros(count, np.int32)
    stream, scale = _Stream(key), math.floor(sigma) + 1
    found, have = [], 0
    while have < count:
        tried = 2 * (count - have) + 64
        # |X| of the Laplace distribution: geometric, P(|X| >= k) = exp(-k / t)
        size = np.floor(-scale * np.log1p(-stream.unit(tried)))
        negative = stream.unit(tried) < 0.5
        # zero would come up twice as often
        valid = ~(negative & (size == 0))
        accept = stream.unit(tried) < np.exp(-((size - sigma**2 / scale) ** 2) / (2 * sigma**2))
        chosen = valid & accept
        found.append(np.where(negative, -size, size)[chosen].astype(np.int32))
        have += found[-1].size
    return np.concatenate(found)[:count] if found else np.zeros(0, np.int32)


def privacy_loss(sigma: float, sensitivity: float, delta: float, rounds: int = 1) -> float:
    """The epsilon of `(epsilon, delta)` differential privacy: `rho + 2 sqrt(rho log(1 / delta))`.

    `rho = rounds sensitivity^2 / (2 sigma^2)` is concentrated differential privacy, which adds up over rounds. No gain
    by sampling clients is counted.

    Args:
        sigma: scale of the noise that the one who is to learn nothing does not know: that of one server, above 0.
        sensitivity: how far one client can move the sum, in Euclidean norm and the unit of `sigma`, above 0.
        delta: from above 0 to below 1.
        rounds: sums released, at least 1.

    Reference:
        Bun and Steinke, Concentrated Differential Privacy (TCC 2016), proposition 1.3; theorem 4 of the paper above for
        discrete noise.
    """
    check.finite_positive(sigma=sigma, sensitivity=sensitivity, delta=delta)
    check.integer(1, rounds=rounds)
    if delta >= 1:
        raise ValueError(f"delta must be below 1, got {delta}")
    rho = rounds * sensitivity**2 / (2 * sigma**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))
