"""Warps, measures and transforms against SciPy and scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, ndimage

from modicum.conference import blending, demonstration, quality, residual, warp


def test_warp_equals_map_coordinates(generator):
    image = generator.random((16, 12, 3)).astype(np.float32)
    field = generator.normal(0, 0.1, (16, 12, 2)).astype(np.float32)
    rows, columns = np.mgrid[:16, :12].astype(np.float64)
    rows, columns = rows + 16 * field[..., 0], columns + 12 * field[..., 1]
    oracle = np.stack(
        [
            ndimage.map_coordinates(image[..., c].astype(float), [rows, columns], order=1, mode="nearest")
            for c in range(3)
        ],
        -1,
    )
    np.testing.assert_allclose(warp.warp(jnp.asarray(image), jnp.asarray(field)), oracle, atol=2e-5)
    np.testing.assert_array_equal(warp.warp(jnp.asarray(image), jnp.zeros((16, 12, 2))), image)


def test_enlarging_keeps_constants_and_slopes():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None, None], (8, 8, 1))
    larger = np.asarray(warp.enlarge(ramp, 4))[..., 0]
    np.testing.assert_allclose(larger[2:-2, 0], (np.arange(32)[2:-2] + 0.5) / 4 - 0.5, atol=1e-6)
    np.testing.assert_allclose(warp.enlarge(jnp.ones((4, 4, 2)), 2), 1, atol=1e-6)


def test_measures_equal_scikit_image(generator):
    metrics = pytest.importorskip("skimage.metrics")
    first = generator.random((64, 64, 3)).astype(np.float32)
    first = ndimage.gaussian_filter(first, (2, 2, 0))
    second = np.clip(first + generator.normal(0, 0.05, first.shape), 0, 1).astype(np.float32)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = metrics.structural_similarity(first.astype(float), second.astype(float), channel_axis=2, **settings)
    pair = jnp.asarray(first), jnp.asarray(second)
    assert float(quality.ssim(*pair)) == pytest.approx(expected, abs=1e-4)
    assert float(quality.psnr(*pair)) == pytest.approx(
        metrics.peak_signal_noise_ratio(first, second, data_range=1.0), abs=1e-3
    )
    assert float(quality.ms_ssim(pair[0], pair[0])) == pytest.approx(1, abs=1e-5)
    assert [quality.scales(n, n) for n in (11, 64, 128, 176, 256)] == [1, 3, 4, 5, 5]


def test_half_the_rate_is_a_difference_of_half():
    anchor = [(4.0, 26.0), (8.0, 29.0), (16.0, 32.0), (32.0, 34.0)]
    assert quality.bd_rate(anchor, [(rate / 2, value) for rate, value in anchor]) == pytest.approx(-0.5)
    assert quality.bd_rate(anchor, [(1.0, 10.0), (2.0, 11.0)]) is None
    assert quality.rate_at(anchor, 30.5) == pytest.approx(np.sqrt(8 * 16))
    assert quality.rate_at(anchor, 20.0) is None


def test_measuring_wants_equal_clips():
    with pytest.raises(ValueError, match="one shape"):
        quality.measure(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((3, 16, 16, 3), np.uint8))


def test_transform_is_the_orthonormal_cosine_transform(generator):
    gray = np.broadcast_to(generator.normal(0, 20, (32, 32, 1)), (32, 32, 3))
    coefficients = residual.forward(gray)
    expected = fft.dctn(gray[8:16, 16:24, 0], norm="ortho")
    np.testing.assert_allclose(coefficients.luma[1, 2], expected, atol=1e-9)
    np.testing.assert_allclose(coefficients.chroma, 0, atol=1e-9)
    np.testing.assert_allclose(residual.inverse(coefficients), gray, atol=1e-9)


def test_residual_decodes_to_what_the_sender_holds(generator):
    wanted = [residual.forward(generator.normal(0, 10, (32, 32, 3))) for _ in range(3)]
    before = residual.forward(generator.normal(0, 3, (32, 32, 3)))
    sizes = []
    for step in (10, 30, 60):
        payload, held = residual.encode(wanted, before, step)
        sizes.append(len(payload))
        decoded = residual.decode(payload, before, 3)
        for first, second in zip(held, decoded, strict=True):
            np.testing.assert_array_equal(first.luma, second.luma)
            np.testing.assert_array_equal(first.chroma, second.chroma)
        # a number in the dead zone is off by up to two thirds of a step, any other by less
        assert np.abs(held[-1].luma - wanted[-1].luma).max() <= 0.67 * residual.STEPS[step] + 1e-9
    assert sizes[0] > sizes[1] > sizes[2]
    assert residual.decode(b"", before, 3) is None
    assert residual.decode(bytes([255]) * 9, before, 3) is None


def test_swap_leaves_the_background_exactly_alone(generator):
    picture, portrait = generator.random((2, 16, 16, 3)).astype(np.float32)
    mask = np.zeros((16, 16, 1), np.float32)
    mask[4:12, 4:12], mask[0, 0] = 1, 0.09
    out = np.asarray(blending.swapped(*map(jnp.asarray, (picture, mask, portrait))))
    np.testing.assert_array_equal(out[mask[..., 0] < 0.1], portrait[mask[..., 0] < 0.1])
    np.testing.assert_array_equal(out[5:11, 5:11], picture[5:11, 5:11])


def test_blur_spares_the_corners(clip):
    soft = blending.blurred(clip[0], 0.04)
    np.testing.assert_array_equal(soft[:6, :6], clip[0][:6, :6])
    middle = (slice(24, 40), slice(24, 40))
    assert (
        np.abs(np.diff(soft[middle].astype(int), axis=0)).mean()
        < np.abs(np.diff(clip[0][middle].astype(int), axis=0)).mean()
    )
    np.testing.assert_array_equal(blending.blurred(clip[0], 0.0), clip[0])


def test_demonstration_moves_by_the_warps_it_says(clip):
    still = demonstration.flow(64, np.zeros(4))
    np.testing.assert_allclose(still, 0, atol=1e-12)
    # a shift of the head is that shift in its middle, and none in the corner
    field = demonstration.flow(64, np.array([0.05, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(field[23, 30], [-0.05, 0.0], atol=1e-12)
    np.testing.assert_allclose(field[-1, 0], 0, atol=1e-12)
    assert clip.shape == (80, 64, 64, 3)
    assert np.abs(clip[0].astype(int) - clip[40]).max() > 50
