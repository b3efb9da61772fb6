"""Measures of pictures: PSNR, SSIM, MS-SSIM, and the Bjontegaard difference of two rate-quality curves."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales of MS-SSIM (Wang, Simoncelli and Bovik, 2003)."""
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(first: Float[Array, " h w c"], second: Float[Array, " h w c"]) -> Float[Array, ""]:
    """`-10 log10(mean squared difference)` in dB, for pictures from 0 to 1; at most 100.

    Args:
        first: a picture.
        second: another of the same shape.
    """
    return -10 * jnp.log10(jnp.maximum(jnp.mean((first - second) ** 2), 1e-10))


def _blur(image: Array) -> Array:
    """Gaussian means of windows that lie inside: (h, w, c) to (h - 10, w - 10, c), as two banded products."""
    taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    taps /= taps.sum()

    def band(size: int) -> np.ndarray:
        matrix = np.zeros((size - _WINDOW + 1, size), np.float32)
        for row in range(len(matrix)):
            matrix[row, row : row + _WINDOW] = taps
        return matrix

    return jnp.einsum("ij,jkc,lk->ilc", band(image.shape[0]), image, band(image.shape[1]))


def _ssim_parts(first: Array, second: Array) -> tuple[Array, Array]:
    """Mean of luminance x structure, and of structure (with contrast) alone."""
    mean1, mean2 = _blur(first), _blur(second)
    variance1, variance2 = _blur(first**2) - mean1**2, _blur(second**2) - mean2**2
    covariance = _blur(first * second) - mean1 * mean2
    structure = (2 * covariance + _C2) / (variance1 + variance2 + _C2)
    luminance = (2 * mean1 * mean2 + _C1) / (mean1**2 + mean2**2 + _C1)
    return jnp.mean(luminance * structure), jnp.mean(structure)


def ssim(first: Float[Array, " h w c"], second: Float[Array, " h w c"]) -> Float[Array, ""]:
    """Structural similarity (Wang et al., 2004): 11 x 11 Gaussian windows of sigma 1.5, mean over windows and channels.

    Args:
        first: a picture from 0 to 1, at least 11 x 11.
        second: another of the same shape.
    """
    return _ssim_parts(first, second)[0]


def scales(height: int, width: int) -> int:
    """Scales at which an 11 x 11 window fits: 5 from 176 pixels on, 3 for 64."""
    return min(len(SCALE_WEIGHTS), int(np.log2(min(height, width) / _WINDOW)) + 1)


def ms_ssim(first: Float[Array, " h w c"], second: Float[Array, " h w c"]) -> Float[Array, ""]:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003).

    Pictures below 176 pixels use the scales that fit, with their weights scaled to the sum 1: 3 scales at 64 pixels,
    4 at 128.

    Args:
        first: a picture from 0 to 1, at least 11 x 11.
        second: another of the same shape.
    """
    count = scales(*first.shape[:2])
    weights = np.array(SCALE_WEIGHTS[:count]) / sum(SCALE_WEIGHTS[:count])
    product = jnp.ones(())
    for scale in range(count):
        whole, structure = _ssim_parts(first, second)
        part = whole if scale == count - 1 else structure
        product = product * jnp.maximum(part, 1e-4) ** weights[scale]
        first, second = halved(first), halved(second)
    return product


def halved(image: Float[Array, " h w c"]) -> Float[Array, " h2 w2 c"]:
    """Means of 2 x 2 pixels; an odd last row or column is left out.

    Args:
        image: a picture.
    """
    height, width, channels = image.shape[0] // 2, image.shape[1] // 2, image.shape[2]
    return image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, channels).mean((1, 3))


@jax.jit
def _measures(first: Array, second: Array) -> tuple[Array, Array, Array]:
    return jax.vmap(psnr)(first, second), jax.vmap(ssim)(first, second), jax.vmap(ms_ssim)(first, second)


def measure(first: np.ndarray, second: np.ndarray, *, batch: int = 50) -> dict[str, float]:
    """Means over the frames of two clips: `psnr` (dB), `ssim`, `ms_ssim`.

    Args:
        first: (frames, h, w, 3) uint8.
        second: the same shape.
        batch: frames in one dispatch.

    Raises:
        ValueError: if the clips differ in shape or hold no frame.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"clips must have one shape and at least 1 frame, got {first.shape} and {second.shape}")
    rows = []
    for start in range(0, len(first), batch):
        # one program does: the last batch is filled up with frames that are not counted
        chosen = np.arange(start, start + batch) % len(first)
        pair = (first[chosen].astype(np.float32) / 255, second[chosen].astype(np.float32) / 255)
        rows.append(np.stack(_measures(*pair))[:, : len(first) - start])
    means = np.concatenate(rows, 1).mean(1)
    return dict(zip(("psnr", "ssim", "ms_ssim"), map(float, means), strict=True))


def rate_at(curve: Sequence[tuple[float, float]], quality: float) -> float | None:
    """The rate at which a curve reaches a quality: linear between its points in log rate; None beyond its ends.

    Args:
        curve: pairs (rate, quality), in any order.
        quality: what is to be reached.
    """
    points = sorted(curve)
    for (rate, low), (next_rate, high) in pairwise(points):
        if low <= quality <= high and high > low:
            share = (quality - low) / (high - low)
            return float(np.exp(np.log(rate) + share * (np.log(next_rate) - np.log(rate))))
    return None


def bd_rate(anchor: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> float | None:
    """The Bjontegaard difference of rate: mean of `ours / anchor - 1` over the qualities both reach, in log rate.

    Piecewise cubic (PCHIP) curves, as JCTVC's later practice has it; negative where ours needs fewer bits.

    Args:
        anchor: pairs (rate, quality), at least two, rate and quality rising together.
        ours: likewise.

    Returns:
        A share (-0.7: 70% fewer bits), or None where the curves share no quality.
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for curve in (anchor, ours):
        rising: list[tuple[float, float]] = []
        for rate, quality in sorted(curve):
            if not rising or quality > rising[-1][1]:
                rising.append((rate, quality))
        if len(rising) < 2:
            return None
        rates, qualities = zip(*rising, strict=True)
        curves.append((PchipInterpolator(qualities, np.log(rates)), qualities[0], qualities[-1]))
    low, high = max(curve[1] for curve in curves), min(curve[2] for curve in curves)
    if low >= high:
        return None
    areas = [float(curve[0].integrate(low, high)) for curve in curves]
    return float(np.exp((areas[1] - areas[0]) / (high - low)) - 1)
