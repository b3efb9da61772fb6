"""Steps, codes, cells and effective bits against plain Python; certificates against all input patterns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analog import (
    CrossbarSpec,
    certify,
    effective_bits,
    held_weights,
    integer_product,
    mapping_error,
    program,
    quantize_inputs,
    quantize_weights,
    slice_cells,
    weight_step,
)
from tests.analog.oracle import cells_of


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_a_grid_are_held_exactly_whatever_levels_they_use(bits):
    spec = CrossbarSpec(weight_bits=bits)
    quantize = jax.jit(lambda w: quantize_weights(w, spec))

    @settings(max_examples=60)
    @given(st.integers(1, spec.levels), st.floats(1e-4, 1e3), st.integers(0, 2**32 - 1))
    def check(largest, scale, seed):
        rng = np.random.default_rng(seed)
        levels = rng.integers(-largest, largest + 1, (12, 3))
        levels[0, 0], levels[1, 0] = largest, largest - 1  # no common divisor: a coarser grid would not do
        weights = (np.float32(scale) * levels).astype(np.float32)
        got, step = quantize(jnp.asarray(weights))
        np.testing.assert_array_equal(np.asarray(got), levels)
        np.testing.assert_allclose(float(step), scale, rtol=1e-6)

    check()


def test_max_scaling_would_not_hold_that_grid():
    weights = 0.1 * jnp.array([[5.0], [4.0], [-1.0], [0.0]])
    assert float(mapping_error(weights, CrossbarSpec(weight_bits=4, weight_scale="max"))) > 0.01
    assert float(mapping_error(weights, CrossbarSpec(weight_bits=4, weight_scale="grid"))) == 0
    assert float(mapping_error(weights, CrossbarSpec(weight_bits=4, weight_scale=0.1))) == 0


def test_grid_step_has_the_least_error(key):
    weights = jax.random.normal(key, (30, 5))
    spec = CrossbarSpec(weight_bits=4)
    w = np.asarray(weights, np.float64)
    errors = []
    for level in range(1, 8):
        step = np.abs(w).max() / level
        errors.append(((w - step * np.rint(w / step)) ** 2).sum())
    assert float(weight_step(weights, spec)) == pytest.approx(np.abs(w).max() / (1 + np.argmin(errors)), rel=1e-6)


@pytest.mark.parametrize("scale", ["max", "grid", 0.5])
def test_empty_weights_stay_empty(key, scale):
    spec = CrossbarSpec(weight_scale=scale)
    levels, step = quantize_weights(jnp.zeros((4, 2)), spec)
    assert not levels.any()
    assert np.isfinite(step)
    assert float(mapping_error(jnp.zeros((4, 2)), spec)) == 0


def test_static_steps_saturate():
    levels, _ = quantize_weights(jnp.array([[100.0], [-100.0]]), CrossbarSpec(weight_bits=4, weight_scale=1.0))
    assert levels[:, 0].tolist() == [7, -7]
    codes, step = quantize_inputs(jnp.array([9.0, -9.0, 0.24]), CrossbarSpec(input_bits=3, input_scale=0.5))
    assert codes.tolist() == [7, -7, 0]
    assert float(step) == 0.5


def test_unsigned_inputs_lose_their_negative_part():
    spec = CrossbarSpec(input_bits=4, input_format="unsigned")
    codes, step = quantize_inputs(jnp.array([[-30.0, 3.0], [1.55, 0.0]]), spec)
    assert codes.tolist() == [[0, 15], [8, 0]]
    assert float(step) == pytest.approx(0.2)
    assert quantize_inputs(jnp.zeros(3), spec)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("weight_bits", "cell_bits"), [(8, 2), (8, 3), (4, 1), (6, 6)])
def test_cells_are_the_digits(weight_bits, cell_bits):
    spec = CrossbarSpec(weight_bits=weight_bits, cell_bits=cell_bits)
    magnitudes = np.arange(spec.levels + 1)
    cells = np.asarray(slice_cells(jnp.asarray(magnitudes, jnp.int32), spec))
    np.testing.assert_array_equal(cells.T, [cells_of(magnitude, spec) for magnitude in magnitudes])


@pytest.mark.parametrize("input_format", ["signed", "unsigned"])
@pytest.mark.parametrize("fragment", [1, 3, 8])
def test_effective_bits_are_bit_lengths(fragment, input_format):
    rng = np.random.default_rng(fragment)
    codes = rng.integers(-255, 256, (6, 10)) >> rng.integers(0, 9, (6, 10))
    codes[0] = 0
    if input_format == "unsigned":
        codes = np.abs(codes)
    spec = CrossbarSpec(fragment=fragment, input_format=input_format)
    lengths = []
    for row, sign in itertools.product(codes, (1, -1) if input_format == "signed" else (1,)):
        parts = (row[start : start + fragment] for start in range(0, 10, fragment))
        lengths.extend(max(max(int(sign * code), 0).bit_length() for code in part) for part in parts)
    assert float(effective_bits(jnp.asarray(codes, jnp.int32), spec)) == pytest.approx(np.mean(lengths))


@pytest.mark.parametrize("adc_mode", ["clip", "flip"])
def test_certified_columns_never_clip_and_the_others_do(key, adc_mode):
    spec = CrossbarSpec(
        fragment=6, weight_bits=3, cell_bits=2, input_bits=1, adc_bits=3, adc_mode=adc_mode, weight_scale=1.0
    )
    rng = np.random.default_rng(11)
    levels = rng.integers(0, 4, (6, 40))
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    certified = np.asarray(certify(chip, spec))
    assert 0 < certified.sum() < 40
    patterns = np.array(list(itertools.product((0, 1), repeat=6)))
    got = np.asarray(integer_product(chip, jnp.asarray(patterns, jnp.int32), spec))[0]
    exact = (got == patterns @ levels).all(axis=0)
    np.testing.assert_array_equal(exact, certified)
    assert certify(chip, CrossbarSpec(adc_bits=None)).all()


def test_held_weights_are_the_nearest_of_one_sign(key):
    spec = CrossbarSpec(fragment=3, weight_bits=4, encoding="polarized", weight_scale=0.5)
    weights = jax.random.normal(key, (7, 4))
    held = np.asarray(held_weights(weights, spec))
    w = np.asarray(weights)
    grid = 0.5 * np.arange(-7, 8)
    for start in range(0, 7, 3):
        for column in range(4):
            part, got = w[start : start + 3, column], held[start : start + 3, column]
            assert (got >= 0).all() or (got <= 0).all()
            rounded = grid[np.abs(part[:, None] - grid).argmin(axis=1)]
            best = min(((rounded - np.maximum(sign * rounded, 0) * sign) ** 2).sum() for sign in (1, -1))
            assert ((rounded - got) ** 2).sum() == pytest.approx(best)
    assert float(mapping_error(jnp.asarray(held), spec)) == 0
    assert float(mapping_error(weights, spec)) == pytest.approx(np.linalg.norm(w - held) / np.linalg.norm(w), rel=1e-5)
