"""Stuck cells, finite ratios and drift: exact against the oracle, and of the stated law."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import (
    CrossbarSpec,
    age,
    certify,
    crossbar,
    drift,
    faults,
    fold,
    program,
    read,
    simulate,
)
from tests.analog.cases import case, product
from tests.analog.oracle import read_all, stick, store

# stuck cells


@pytest.mark.parametrize(("stuck_off", "stuck_on"), [(0.1, 0.05), (0.0, 1.0), (0.7, 0.3), (1.0, 0.0)])
def test_stuck_cells_are_the_oracles(key, stuck_off, stuck_on):
    spec = CrossbarSpec(stuck_off=stuck_off, stuck_on=stuck_on, on_off_ratio=10.0)
    conductance = jax.random.uniform(key, (4, 50), minval=0.4, maxval=3.0)
    drawn = np.asarray(jax.random.uniform(key, (200,))).reshape(4, 50)
    off = spec.off_conductance
    got = jax.jit(faults, static_argnums=(2, 3, 4, 5))(key, conductance, stuck_off, stuck_on, off, off + 3)
    np.testing.assert_array_equal(np.asarray(got), stick(conductance, drawn, spec).astype(np.float32))


def test_stuck_cells_have_their_probabilities(key):
    got = np.asarray(faults(key, jnp.full(40_000, 0.5), 0.1, 0.05, 0.0, 1.0))
    for level, probability in ((0.0, 0.1), (1.0, 0.05)):
        for wrong, plausible in ((probability, True), (probability * 1.2, False), (probability * 0.8, False)):
            error = abs((got == level).mean() - wrong)
            assert (error < 4 * np.sqrt(wrong * (1 - wrong) / got.size)) == plausible


FAULTY = {
    "folded, larger than any weight": {"adc_bits": None},
    "no read saturates": {"adc_bits": 5, "encoding": "polarized"},
    "faults undo what flips save": {"adc_bits": 4},
    "varied as well": {"adc_bits": 4, "sigma": 0.1, "encoding": "offset", "on_off_ratio": 8.0},
}


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_chips_are_read_exactly(key, name):
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=4, stuck_off=0.1, stuck_on=0.2, **FAULTY[name])
    levels, codes = case(spec)
    weights = jnp.asarray(levels, jnp.float32)
    chip = program(key, weights, spec)
    sound = program(key, weights, CrossbarSpec(**{**vars(spec), "stuck_off": 0.0, "stuck_on": 0.0}))
    drawn = np.asarray(jax.random.uniform(jax.random.fold_in(key, zlib.crc32(b"faults")), (sound.conductance.size,)))
    # the same variation with and without faults
    stuck = stick(sound.conductance, drawn.reshape(sound.conductance.shape), spec)
    np.testing.assert_array_equal(np.asarray(chip.conductance), stuck.astype(np.float32))
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert tie > 1e-5
    assert not np.array_equal(expected, codes @ levels)
    assert spec.linear == (name[:2] in ("fo", "no"))
    for path in ("fold",) * spec.linear + ("direct",) + ("table",) * (spec.adc_bits is not None):
        np.testing.assert_array_equal(product(chip, codes, spec, path), expected, err_msg=path)


def test_a_stuck_cell_can_stand_for_more_than_any_weight(key):
    # 255 steps instead of 127: blocks of the fold and int32 limbs make room for it
    spec = CrossbarSpec(weight_scale=1.0, adc_bits=None, stuck_on=0.9, encoding="polarized", input_format="unsigned")
    levels, codes = np.full((600, 2), 127), np.full((2, 600), 255)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    weights = np.asarray(fold(chip, spec)).astype(np.int64)
    assert spec.levels < weights.max() == spec.largest_weight == 255
    np.testing.assert_array_equal(product(chip, codes, spec), codes @ weights)


def test_flips_bits_are_not_certified_for_faulty_columns(key):
    spec = CrossbarSpec(weight_scale=1.0, stuck_on=1.0)
    chip = program(key, jnp.ones((8, 2)), spec)
    assert not spec.linear
    assert not certify(chip, spec).any()
    assert certify(program(key, jnp.ones((8, 2)), CrossbarSpec(weight_scale=1.0)), CrossbarSpec()).all()


# the on/off ratio


@pytest.mark.parametrize("ratio", [1.5, 100.0])
def test_the_reference_column_compensates_a_finite_ratio(key, ratio):
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, on_off_ratio=ratio, input_bits=4)
    levels, codes = case(spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    assert float(chip.conductance.max() / chip.conductance.min()) == pytest.approx(ratio, rel=1e-5)
    for path in ("fold", "table"):
        np.testing.assert_array_equal(product(chip, codes, spec, path), codes @ levels, err_msg=path)


def test_what_erased_cells_vary_by_is_not_compensated(key):
    errors = []
    weights, inputs = jnp.zeros((64, 8)).at[0].set(1.0), jnp.ones((1, 64))
    for ratio in (None, 100.0, 3.0):
        spec = CrossbarSpec(adc_bits=None, sigma=0.1, on_off_ratio=ratio, weight_scale=0.01)
        got = read(key, program(key, weights, spec), inputs, spec)
        errors.append(float(jnp.std(got)))
    assert errors[0] < errors[1] < errors[2] / 10


# drift


def test_drift_law_of_the_mean(key):
    conductance = jnp.linspace(0.0, 3.0, 12).reshape(3, 4)
    for seconds, factor in ((0.0, 1.0), (20.0, 1.0), (2000.0, 100.0**-0.05), (2e7, 1e6**-0.05)):
        got = jax.jit(drift)(key, conductance, seconds, 0.05)
        np.testing.assert_allclose(got, conductance * factor, rtol=1e-5)
    got = drift(key, conductance, 500.0, 0.1, reference_seconds=5.0)
    np.testing.assert_allclose(got, conductance * 100.0**-0.1, rtol=1e-5)


def test_drift_exponents_spread_over_cells_and_stay(key):
    one = jnp.ones(20_000)
    exponents = -np.log(np.asarray(drift(key, one, 2000.0, 0.05, spread=0.01))) / np.log(100.0)
    for mean, spread, plausible in ((0.05, 0.01, True), (0.05, 0.011, False), (0.051, 0.01, False)):
        error = 4 * spread / np.sqrt(one.size)
        seen = abs(exponents.mean() - mean) < error and abs(exponents.std() - spread) < error / np.sqrt(2)
        assert seen == plausible
    later = -np.log(np.asarray(drift(key, one, 2e6, 0.05, spread=0.01))) / np.log(1e5)
    np.testing.assert_allclose(later, exponents, rtol=1e-3, atol=1e-5)
    # no cell gains with time
    assert np.asarray(drift(key, one, 2000.0, 0.0, spread=0.1)).max() == 1.0


def test_drift_is_differentiable(key):
    to_cell, to_time, to_exponent = jax.grad(lambda g, t, n: drift(key, g, t, n).sum(), argnums=(0, 1, 2))(
        jnp.array([2.0]), jnp.asarray(2000.0), jnp.asarray(0.05)
    )
    left = 100.0**-0.05
    np.testing.assert_allclose(to_cell, [left], rtol=1e-5)
    np.testing.assert_allclose(to_time, -0.05 * 2 * left / 2000, rtol=1e-5)
    np.testing.assert_allclose(to_exponent, -np.log(100.0) * 2 * left, rtol=1e-5)


def test_drift_refuses_bad_numbers(key):
    with pytest.raises(ValueError, match=r"^spread must not be below 0, got -0.1"):
        drift(key, jnp.ones(2), 30.0, 0.05, spread=-0.1)
    with pytest.raises(ValueError, match=r"^reference_seconds must be above 0, got 0.0"):
        drift(key, jnp.ones(2), 30.0, 0.05, reference_seconds=0.0)


@pytest.mark.parametrize("changes", [{}, {"encoding": "offset", "on_off_ratio": 10.0}, {"adc_bits": None}])
def test_compensation_undoes_common_drift(key, changes):
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=4, **{"adc_bits": 5, **changes})
    levels, codes = case(spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    inputs = jnp.asarray(codes, jnp.float32)
    spec = CrossbarSpec(**{**vars(spec), "input_scale": 1.0})
    errors = {}
    for compensated in (True, False):
        aged = age(key, chip, 2e6, 0.05, compensated=compensated)
        got = np.asarray(read(key, aged, inputs, spec))
        errors[compensated] = np.abs(got - codes @ levels).max() / np.abs(codes @ levels).max()
    assert errors[True] < 1e-5
    assert errors[False] > 0.1
    spread = age(key, chip, 2e6, 0.05, spread=0.02)
    assert np.abs(np.asarray(read(key, spread, inputs, spec)) - codes @ levels).max() > 1


@pytest.mark.parametrize("compensated", [True, False])
def test_aged_chips_are_read_exactly(key, compensated):
    # the spec alone would call these reads linear and round them
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=3, adc_bits=6, on_off_ratio=10.0)
    levels, codes = case(spec)
    aged = age(
        key, program(key, jnp.asarray(levels, jnp.float32), spec), 1e5, 0.05, spread=0.02, compensated=compensated
    )
    assert spec.linear
    assert (float(aged.reference) == 1.0) != compensated
    _, signs, flips = store(levels, spec)
    relative = np.asarray(aged.conductance / aged.reference)
    expected, tie = read_all(relative, signs, flips, codes, spec)
    assert tie > 1e-5
    for path in (None, "table", "direct"):
        np.testing.assert_array_equal(product(aged, codes, spec, path), expected, err_msg=str(path))


def test_aged_device_under_simulate_grad_and_vmap(key):
    device = crossbar(fragment=20, adc_bits=5, weight_bits=4, input_bits=3, weight_scale=0.2, encoding="offset")

    def aged(key, weights, spec):
        programming, aging = jax.random.split(key)
        return age(aging, program(programming, weights, spec), 1e5, 0.05, spread=0.02)

    fun = jax.jit(simulate(lambda w, x: x @ w, device._replace(program=aged)))
    weights, inputs = jax.random.normal(key, (6, 2)), jax.random.normal(key, (3, 6))
    keys = jax.random.split(key, 2)
    together = jax.vmap(fun, in_axes=(0, None, None))(keys, weights, inputs)
    np.testing.assert_array_equal(together, jnp.stack([fun(k, weights, inputs) for k in keys]))
    assert np.abs(np.asarray(together[0] - together[1])).max() > 1e-4
    to_weights = jax.grad(lambda w: fun(key, w, inputs).sum())(weights)
    np.testing.assert_allclose(to_weights, np.broadcast_to(np.asarray(inputs).sum(0)[:, None], (6, 2)), rtol=1e-5)
