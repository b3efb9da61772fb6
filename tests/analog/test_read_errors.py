"""Read noise and converter errors: exact against the oracle, and of the stated law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import (
    CrossbarSpec,
    certify,
    integer_product,
    program,
    read,
    read_noise,
    read_path,
    transitions,
)
from tests.analog.cases import COLUMNS, VECTORS, case, product
from tests.analog.oracle import convert_one, read_all, store

# read noise


@pytest.mark.parametrize(
    "changes", [{}, {"fragment": 24, "encoding": "offset"}, {"adc_bits": 6, "sigma": 0.1, "input_format": "unsigned"}]
)
def test_noisy_reads_are_the_oracles(key, changes):
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=3, read_noise=0.4, **changes)
    levels, codes = case(spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    fragments = chip.sign.shape[1]
    reading = jax.random.fold_in(key, 1)
    noise = [
        [np.asarray(read_noise(reading, f, bit, VECTORS, COLUMNS, spec)) for f in range(fragments)]
        for bit in range(spec.input_bits)
    ]
    noise = np.moveaxis(np.asarray(noise, np.float64), 2, 0)  # pass, bit, fragment, p, c, vector, column
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec, noise)
    assert tie > 1e-5
    assert read_path(spec, 10**6) == "direct"
    np.testing.assert_array_equal(product(chip, codes, spec, key=reading), expected)
    quiet, _ = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert not np.array_equal(expected, quiet)


def test_noise_has_its_size_and_every_read_its_own(key):
    spec = CrossbarSpec(read_noise=0.4)
    draws = [np.asarray(read_noise(key, f, b, 40, 30, spec)).ravel() for f, b in ((0, 0), (0, 1), (1, 0))]
    assert draws[0].size == 2 * 2 * 4 * 40 * 30
    bound = 4 / np.sqrt(draws[0].size)
    for one in draws:
        assert abs(one.mean()) < 0.4 * bound
        assert abs(one.std() - 0.4) < 0.4 * bound / np.sqrt(2)
        assert abs(one.std() - 0.42) > 0.42 * bound / np.sqrt(2)
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < bound
    assert abs(np.corrcoef(draws[0], draws[2])[0, 1]) < bound


def test_noise_of_an_ideal_converter_is_the_sum_of_all_reads(key):
    spec = CrossbarSpec(adc_bits=None, read_noise=0.3, weight_bits=4, input_bits=3, weight_scale=1.0, input_scale=1.0)
    chip = program(key, jnp.zeros((20, 200)), spec)
    got = np.asarray(read(key, chip, jnp.ones((100, 20)), spec))
    reads = [4**bit * 16**cell for bit in range(3) for cell in range(2) for _ in range(2 * 2 * 3)]
    expected = 0.3 * np.sqrt(sum(reads))
    bound = 4 / np.sqrt(2 * got.size)
    assert abs(got.std() / expected - 1) < bound < 0.021
    assert abs(got.mean()) < 4 * expected / np.sqrt(got.size)


def test_noise_needs_a_key_and_reads_one_by_one(key):
    spec = CrossbarSpec(read_noise=0.1)
    chip = program(key, jnp.ones((8, 2)), spec)
    codes = jnp.ones((1, 8), jnp.int32)
    with pytest.raises(ValueError, match=r"^key must be a PRNG key .* got None"):
        integer_product(chip, codes, spec)
    with pytest.raises(ValueError, match=r"^path must be None or 'direct' .* got 'table'"):
        integer_product(chip, codes, spec, "table", key)


@pytest.mark.parametrize("adc_bits", [4, None])
def test_noisy_gradients_stay_and_vmap_is_a_loop(key, adc_bits):
    spec = CrossbarSpec(fragment=20, read_noise=0.5, weight_bits=4, input_bits=3, adc_bits=adc_bits, weight_scale=0.2)
    weights, inputs = jax.random.normal(key, (9, 3)), jax.random.normal(key, (2, 4, 9))

    @jax.jit
    def outputs(reading, weights, inputs):
        return read(reading, program(key, weights, spec), inputs, spec)

    keys = jax.random.split(key, 2)
    for axes, operands in (((0, None, None), (keys, weights, inputs[0])), ((None, None, 0), (key, weights, inputs))):
        together = jax.vmap(outputs, in_axes=axes)(*operands)
        one = [[each[n] if axis == 0 else each for each, axis in zip(operands, axes, strict=True)] for n in range(2)]
        apart = jnp.stack([outputs(*each) for each in one])
        np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(outputs(keys[0], weights, inputs[0]) - outputs(keys[1], weights, inputs[0]))).max() > 0.01
    _, backward = jax.vjp(lambda w, x: outputs(key, w, x), weights, inputs[0])
    cotangent = jax.random.normal(keys[0], (4, 3))
    to_weights, to_inputs = backward(cotangent)
    np.testing.assert_allclose(to_weights, inputs[0].T @ cotangent, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_inputs, cotangent @ weights.T, rtol=1e-5, atol=1e-5)


# errors of the converter

TRANSFERS = {
    "offset": {"adc_offset": 0.7, "adc_bits": 5, "encoding": "polarized", "input_format": "unsigned"},
    "gain": {"adc_gain": 0.8, "adc_bits": 5},
    "non-linear": {"adc_inl": (0.3, -0.4, 1.3, 0.0, -0.2, 0.9, -1.1)},  # two transitions change places
    "all": {"adc_offset": -0.6, "adc_gain": 1.1, "adc_inl": (0.1,) * 15, "sigma": 0.1, "encoding": "polarized"},
    "large fragments": {"adc_gain": 0.9, "adc_bits": 6, "fragment": 18, "encoding": "offset", "sigma": 0.1},
}


@pytest.mark.parametrize("name", TRANSFERS)
def test_transfer_curves_are_the_oracles(key, name):
    changes = TRANSFERS[name]
    bits = {7: 3, 15: 4}.get(len(changes.get("adc_inl", ())), 4)
    # whole currents sit half a step from ideal transitions: a little variation keeps them off the moved ones
    spec = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=4, **{"adc_bits": bits, "sigma": 0.01, **changes})
    levels, codes = case(spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert tie > 1e-5
    ideal, _ = read_all(
        np.asarray(chip.conductance),
        signs,
        flips,
        codes,
        CrossbarSpec(**{**vars(spec), "adc_offset": 0.0, "adc_gain": 1.0, "adc_inl": None}),
    )
    assert not np.array_equal(expected, ideal)
    for path in ("table", "direct") if spec.fragment <= 9 else ("direct",):
        np.testing.assert_array_equal(product(chip, codes, spec, path), expected, err_msg=path)


def test_a_table_without_errors_is_the_rounding_converter(key):
    plain = CrossbarSpec(weight_scale=1.0, weight_bits=4, input_bits=4, sigma=0.1)
    levels, codes = case(plain)
    chip = program(key, jnp.asarray(levels, jnp.float32), plain)
    tabled = CrossbarSpec(**{**vars(plain), "adc_inl": (0.0,) * 15})
    assert transitions(tabled) == tuple(np.arange(15) + 0.5)
    np.testing.assert_array_equal(product(chip, codes, plain), product(chip, codes, tabled))


def test_transitions_move_as_stated():
    spec = CrossbarSpec(adc_bits=3, adc_offset=0.25, adc_gain=2.0, adc_inl=(0.0, 0.5, 0.0, -0.5, 0.0, 0.0, 0.0))
    assert transitions(spec) == (0.125, 0.375, 1.125, 1.875, 2.125, 2.625, 3.125)
    codes, _ = convert_one(np.array([0.1, 0.2, 1.0, 1.2, 1.8, 99.0, -5.0]), spec)
    assert codes.tolist() == [0, 1, 2, 3, 3, 7, 0]


def test_gain_and_offset_enter_the_certificate(key):
    spec = CrossbarSpec(weight_scale=1.0, adc_mode="clip", encoding="polarized", weight_bits=3)
    chip = program(key, jnp.full((5, 1), 3.0), spec)  # a current of 15, the largest code of 4 bits
    assert certify(chip, spec).all()
    for change in ({"adc_gain": 1.1}, {"adc_offset": 0.6}):
        assert not certify(chip, CrossbarSpec(**{**vars(spec), **change})).any()
