"""Programming variation has the stated law: right sizes are accepted and wrong ones rejected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import CrossbarSpec, gaussian, lognormal, program

SIGMA = 0.1


def plausible(sample, mean, sigma):
    """Mean and standard deviation within four standard errors."""
    errors = 4 * sigma / np.sqrt(sample.size)
    return abs(sample.mean() - mean) < errors and abs(sample.std() - sigma) < errors / np.sqrt(2)


def chip_and_nominal(key, **changes):
    spec = CrossbarSpec(weight_scale=1.0, **changes)
    levels = np.random.default_rng(0).integers(-spec.levels, spec.levels + 1, (160, 40))
    weights = jnp.asarray(levels, jnp.float32)
    nominal = program(key, weights, CrossbarSpec(**{**vars(spec), "sigma": 0.0}))
    chip = program(key, weights, spec)
    return np.asarray(chip.conductance, np.float64), np.asarray(nominal.conductance, np.float64)


@pytest.mark.parametrize("encoding", ["differential", "polarized"])
def test_lognormal(key, encoding):
    got, nominal = chip_and_nominal(key, sigma=SIGMA, encoding=encoding)
    logs = np.log(got[nominal > 0] / nominal[nominal > 0])
    assert logs.size > 10_000
    assert plausible(logs, 0.0, SIGMA)
    for wrong in (0.95 * SIGMA, 1.05 * SIGMA):
        assert not plausible(logs, 0.0, wrong)
    assert not plausible(logs, 0.01, SIGMA)
    assert not plausible(got[nominal > 0] / nominal[nominal > 0] - 1, 0.0, SIGMA)  # the mean is exp(sigma^2 / 2)
    assert not got[nominal == 0].any()


def test_gaussian(key):
    got, nominal = chip_and_nominal(key, sigma=SIGMA, variation="gaussian", on_off_ratio=2.0)
    noise = got - nominal
    assert plausible(noise, 0.0, SIGMA * 3)
    assert not plausible(noise, 0.0, SIGMA)
    assert not plausible(noise, 0.0, SIGMA * 3 * 1.05)
    for level in range(4):  # of one size at every level
        assert plausible(noise[np.isclose(nominal, level + 3.0)], 0.0, SIGMA * 3)


def test_gaussian_stops_at_zero(key):
    got, nominal = chip_and_nominal(key, sigma=SIGMA, variation="gaussian")
    empty = got[nominal == 0]
    assert empty.min() == 0
    assert abs((empty == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(empty.size)


def test_cells_and_chips_are_independent(key):
    first, nominal = chip_and_nominal(key, sigma=SIGMA)
    second, _ = chip_and_nominal(jax.random.fold_in(key, 1), sigma=SIGMA)
    again, _ = chip_and_nominal(key, sigma=SIGMA)
    np.testing.assert_array_equal(first, again)
    full = (nominal > 0).all(axis=1)
    one, other = (np.log(g[:, 0][full] / nominal[:, 0][full]) for g in (first, second))
    next_cell = np.log(first[:, 1][full] / nominal[:, 1][full])
    bound = 4 / np.sqrt(one.size)
    assert abs(np.corrcoef(one, other)[0, 1]) < bound
    assert abs(np.corrcoef(one, next_cell)[0, 1]) < bound
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < bound
    assert np.corrcoef(one, one)[0, 1] > 0.99


def test_no_variation_draws_nothing(key):
    got, nominal = chip_and_nominal(key, sigma=0.0)
    np.testing.assert_array_equal(got, nominal)


def test_units_are_free(key):
    siemens = 1e-6 * jnp.arange(1.0, 5.0)
    np.testing.assert_allclose(lognormal(key, siemens, 0.2), 1e-6 * lognormal(key, siemens * 1e6, 0.2), rtol=1e-6)
    np.testing.assert_allclose(
        gaussian(key, siemens, 0.2, 4e-6), 1e-6 * gaussian(key, siemens * 1e6, 0.2, 4.0), rtol=1e-5
    )
