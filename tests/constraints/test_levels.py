"""`Levels` and `best_scale`: the grid, the search, exact recovery of a scale, traced scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import Levels, best_scale
from tests.constraints import reference


def squared_errors(w, bits, scales):
    """Float64: error of each scale."""
    top = 2 ** (bits - 1) - 1
    w = np.asarray(w, np.float64).ravel()[:, None]
    return np.square(w - np.clip(np.round(w / scales), -top, top) * scales).sum(axis=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("tail", ["normal", "laplace", "outlier", "uniform"])
def test_scale_is_near_the_best_of_a_fine_scan(bits, tail, key):
    w = jax.random.laplace(key, (600,)) if tail == "laplace" else jax.random.normal(key, (600,))
    w = w.at[0].set(40.0) if tail == "outlier" else w
    w = jax.random.uniform(key, (600,), minval=-1) if tail == "uniform" else w
    top = 2 ** (bits - 1) - 1
    scan = np.geomspace(float(jnp.abs(w).max()) / top / 300, 2.5 * float(jnp.abs(w).max()) / top, 4000)
    best = squared_errors(w, bits, scan).min()
    found = squared_errors(w, bits, np.array([float(best_scale(w, bits))]))[0]
    assert found <= 1.02 * best
    plain = squared_errors(w, bits, np.array([float(jnp.abs(w).max()) / top]))[0]
    assert found <= plain * (1 + 1e-6)


@pytest.mark.parametrize(("kind", "bits"), [("powers", 3), ("powers", 5), ("slices", 5), ("slices", 8)])
def test_scale_of_other_kinds_is_near_the_best_of_a_fine_scan(kind, bits, key):
    w = jax.random.normal(key, (600,))
    positive = np.array(reference.magnitudes(Levels(bits, kind=kind)), np.float64)
    grid = np.concatenate([-positive[:0:-1], positive])[None]

    def error(scale):
        middle = (grid[0, 1:] + grid[0, :-1]) / 2
        wide = np.asarray(w, np.float64)
        return np.square(wide - scale * grid[0, np.searchsorted(middle, wide / scale)]).sum()

    largest = float(jnp.abs(w).max())
    best = min(error(scale) for scale in np.geomspace(largest / positive[-1] / 8, largest, 2000))
    assert error(float(best_scale(w, bits, kind))) <= 1.02 * best


def test_levels_of_each_kind():
    w = jnp.linspace(-140, 140, 4001)
    for levels, magnitudes in (
        (Levels(2, 1.0, "powers"), [0, 1]),
        (Levels(4, 1.0, "powers"), [0, 1, 2, 4, 8, 16, 32, 64]),
        (Levels(5, 1.0, "slices"), [0, 1, 2, 3, 4, 8, 12]),
        (Levels(8, 1.0, "slices"), [0, 1, 2, 3, 4, 8, 12, 16, 32, 48, 64]),
        (Levels(4, 1.0, "slices", cell_bits=1), [0, 1, 2, 4]),
        (Levels(5, 1.0, "slices", slices=2), list(range(16))),
    ):
        p = np.asarray(levels.project(w), np.float64)
        assert sorted(set(np.abs(p))) == magnitudes
        nearest = np.abs(np.abs(np.asarray(w, np.float64))[:, None] - np.array(magnitudes)[None]).min(axis=1)
        np.testing.assert_array_equal(np.abs(w - p), nearest)
    with_all = Levels(5, 0.3, "slices", slices=2)
    np.testing.assert_array_equal(with_all.project(w / 20), Levels(5, 0.3).project(w / 20))


@pytest.mark.parametrize(
    ("bits", "kind", "dtype"),
    [
        *((bits, "fixed", dtype) for bits in (2, 4, 8) for dtype in ("float32", "bfloat16", "float16")),
        *((4, "powers", "bfloat16"), (5, "powers", "float32"), (5, "slices", "float16"), (8, "slices", "float32")),
    ],
)
def test_a_weight_on_a_grid_gives_its_grid_back(bits, kind, dtype):
    """Exactly: else `project` without a fitted scale would not be idempotent."""
    rng = np.random.default_rng(bits)
    constraint = Levels(bits, kind=kind)
    w = jnp.asarray(rng.normal(size=(100, 40)) * 2.0 ** rng.integers(-8, 4, size=(100, 1)), dtype)

    @jax.jit
    @jax.vmap
    def twice(w):
        p = constraint.project(w)
        return p, constraint.project(p), constraint.violation(p), constraint.fit(p).scale

    p, again, violation, scale = (np.asarray(x.astype(jnp.float32), np.float64) for x in twice(w))
    np.testing.assert_array_equal(p, again)
    assert not violation.any()
    levels = p / scale[:, None]
    np.testing.assert_array_equal(levels, np.round(levels), "levels are exact in the weight's own dtype")
    assert set(np.abs(levels).ravel()) <= set(reference.magnitudes(constraint))


def test_projection_is_the_nearest_level():
    w = jnp.linspace(-3, 3, 2001)
    grid = 0.3 * np.arange(-7, 8)
    distance = np.abs(np.asarray(w, np.float64)[:, None] - grid).min(axis=1)
    p = np.asarray(Levels(4, 0.3).project(w), np.float64)
    np.testing.assert_allclose(np.abs(np.asarray(w, np.float64) - p), distance, atol=1e-6)


def test_given_scale_stays_and_may_be_traced(key):
    w = jax.random.normal(key, (5, 6))
    assert Levels(4, 0.3).fit(w) == Levels(4, 0.3)
    scales = jnp.array([0.1, 0.3, 1.0])
    mapped = jax.jit(jax.vmap(lambda c: c.project(w)))(Levels(4, scales))
    for at, scale in enumerate((0.1, 0.3, 1.0)):
        np.testing.assert_array_equal(mapped[at], Levels(4, scale).project(w))
    encoded = jax.vmap(lambda s: Levels(4, s).decode(Levels(4, s).encode(w)))(scales)
    np.testing.assert_array_equal(encoded, mapped)


def test_fit_freezes_the_scale(key):
    w = jax.random.normal(key, (5, 6))
    fitted = Levels(3).fit(w)
    assert not Levels(3).exact
    assert fitted.exact
    np.testing.assert_array_equal(fitted.project(w), Levels(3).project(w))
    assert float(jnp.abs(fitted.project(10 * w)).max()) == 3 * float(fitted.scale)
    under_vmap = jax.vmap(Levels(3).fit)(jnp.stack([w, 2 * w])).scale
    np.testing.assert_array_equal(under_vmap, [fitted.scale, 2 * fitted.scale])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Levels(1), "bits must be a whole number of at least 2 and at most 8, got 1"),
        (lambda: Levels(9), "bits must be"),
        (lambda: Levels(6, kind="powers"), "bits must be a whole number of at least 2 and at most 5, got 6"),
        (lambda: Levels(4, kind="slices", slices=0), "slices must be a whole number of at least 1"),
        (lambda: Levels(4, kind="slices", cell_bits=8), "cell_bits must be a whole number of at least 1 and at most 7"),
        (lambda: Levels(4, 0.0), "scale must be above 0"),
        (lambda: Levels(4, "a"), "scale must be a number above 0"),
        (lambda: Levels(4, jnp.array(-1.0)).project(jnp.ones(2)), "scale must be a finite number above 0, got -1"),
        (lambda: Levels(4, float("inf")).project(jnp.ones(2)), "scale must be a finite number above 0"),
        (lambda: Levels(4, jnp.ones(3)).project(jnp.ones(2)), "scale must be one number"),
    ],
)
def test_bad_levels(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_kind_that_is_none():
    with pytest.raises((ValueError, TypeError), match="kind"):
        Levels(4, kind="floats")
