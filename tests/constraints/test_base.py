"""Shared numerics: views against the rows of a site's matrix, ranks, rounding, distances at extreme ranges."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from modicum.constraints import base
from modicum.core import matmul_form, sites


def conv(w, x):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("fun", "w", "x"), [(conv, (2, 3, 4, 5), (1, 6, 6, 4)), (lambda w, x: x @ w, (7, 5), (2, 7))], ids=["conv", "dense"]
)
def test_rows_are_those_of_the_matrix_a_crossbar_holds(fun, w, x):
    weight = jnp.arange(np.prod(w), dtype=jnp.float32).reshape(w)
    (site,) = sites(fun, weight, jnp.ones(x))
    matrix = matmul_form(site).weight(weight)[0]
    np.testing.assert_array_equal(base.as_view(weight, "rows")[..., 0], matrix.T)
    np.testing.assert_array_equal(base.as_view(weight, "kernels").reshape(5, -1), matrix.T)


@pytest.mark.parametrize("view", ["elements", "rows", "kernels"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_views_only_move_numbers(view, shape, key):
    w = jax.random.normal(key, shape)
    x = base.as_view(w, view)
    assert x.shape == base.view_shape(shape, view)
    np.testing.assert_array_equal(base.from_view(x, shape, view), w)


def test_ranks_equal_a_stable_sort(key):
    score = jax.random.randint(key, (30, 9), 0, 4).astype(jnp.float32)
    for k in range(10):
        mask = np.asarray(base.rank_mask(score, k))
        assert (mask.sum(axis=1) == k).all()
        for row, kept in zip(np.asarray(score), mask, strict=True):
            np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(np.argsort(-row, kind="stable")[:k]))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_rounding_to_a_short_type_survives_jit(dtype, key):
    x = jax.random.normal(key, (1000,))
    expected = np.asarray(x).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(base.in_dtype(x, dtype), expected)
    np.testing.assert_array_equal(jax.jit(lambda x: base.in_dtype(x * 1.0, dtype))(x), expected)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_distances_neither_under_nor_overflow(size, key):
    w = jax.random.normal(key, (50,)) * size
    p = jnp.where(jnp.arange(50) < 30, w, 0.0)
    wide, kept = np.asarray(w, np.float64), np.asarray(p, np.float64)
    expected = np.linalg.norm(wide - kept) / np.linalg.norm(wide)
    np.testing.assert_allclose(base.relative_distance(w, p), expected, rtol=1e-5)
    assert float(base.relative_distance(w, w)) == 0
    if 1e-18 < size < 1e18:
        np.testing.assert_allclose(base.kept_energy(w, p), np.sum(kept**2), rtol=1e-5)
    assert 0.5 <= float(jnp.max(jnp.abs(w)) * base.unit(w)) < 1


@pytest.mark.optimized
def test_an_equal_product_has_no_distance_though_xla_may_fuse_it(key):
    """`w - q * scale` as one fused operation sees the unrounded product."""
    scale = jnp.float32(0.1)
    q = jax.random.randint(key, (1000,), -127, 128).astype(jnp.float32)
    w = q * scale
    distance = jax.jit(lambda w, q, scale: base.relative_distance(w, q * scale))(w, q, scale)
    assert float(distance) == 0
    exact = np.asarray(q, np.float64) * np.float64(scale)
    assert np.any(np.asarray(w, np.float64) != exact), "the products are rounded, so there is something to see"


@pytest.mark.parametrize("size", [31, 37])
def test_rank_mask_is_a_stable_sort(size):
    """Both ways to rank (pairs, halving) against NumPy's stable sort: ties, infinities, zeros of both signs."""
    rng = np.random.default_rng(size)
    shape = (600, size)
    wide = rng.normal(size=shape) * 10.0 ** rng.integers(-38, 38, shape)
    wide[np.abs(wide) < np.finfo(np.float32).tiny] = 0  # XLA takes subnormal numbers for zeros
    kinds = [
        rng.normal(size=shape),
        rng.integers(-3, 4, shape),
        np.clip(wide, -3e38, 3e38),
        np.where(rng.random(shape) < 0.5, -np.inf, rng.integers(0, 3, shape)),
        np.where(rng.random(shape) < 0.5, -0.0, 0.0),
    ]
    scores = np.concatenate(kinds).astype(np.float32)
    k = rng.integers(0, size + 8, len(scores))
    masks = np.asarray(jax.jit(jax.vmap(base.rank_mask))(scores, k))
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = np.argsort(order, axis=1, kind="stable") < k[:, None]
    np.testing.assert_array_equal(masks, expected)
    together = jax.jit(base.rank_mask)(scores, k[:, None])
    np.testing.assert_array_equal(together, expected)
