"""CAP-RAM macros: exact when ideal, the paper's physics in float64, calibration, noise, gradients."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analog import ChargeSpec, calibrate, capram, charge, report, simulate
from modicum.analog.charge_spec import WEIGHT_BITS

WIDTHS = [(encoding, bits) for encoding, widths in WEIGHT_BITS.items() for bits in widths]
QUIET = {"dac_volts": 0.0, "residue_volts": 0.0, "noise_lsb": 0.0}
UNITS = {"weight_scale": 1.0, "input_scale": 1.0}
IDEAL = {**QUIET, **UNITS, "adc_bits": 12, "lsb": 1.0}


@partial(jax.jit, static_argnames="spec")
def product(key, weights, inputs, spec):
    programming, reading = jax.random.split(key)
    return charge.read(reading, charge.program(programming, weights, spec), inputs, spec)


def draw(rng, spec, rows=150, columns=3, vectors=4):
    """Integer weights and inputs over their whole range, with the extremes in the last column and first vector."""
    lowest, highest = spec.levels
    weights = rng.integers(lowest, highest + 1, (rows, columns))
    weights[:, -1] = rng.choice([lowest, highest])
    largest = 2**spec.input_bits - 1
    inputs = rng.integers(-largest if spec.input_format == "signed" else 0, largest + 1, (vectors, rows))
    inputs[0] = largest
    return weights, inputs


def floats(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def bits_of(level, spec):
    """Cells of one integer by repeated division: a list per polarity."""
    modulus = 2**spec.weight_bits
    parts = [max(level, 0), max(-level, 0)] if spec.encoding == "ternary" else [level % modulus]
    return [[part // 2**digit % 2 for digit in range(spec.digits)] for part in parts]


def slow_product(weights, inputs, spec):
    """Conversion by conversion in int64 and float64: blocks, digits, passes, nibbles, one rounding each."""
    total = np.zeros((len(inputs), weights.shape[1]), np.int64)
    lowest, highest = spec.codes
    for start in range(0, len(weights), 128):
        block = weights[start : start + 128]
        cells = np.array([[bits_of(int(level), spec) for level in row] for row in block])
        digits = cells[:, :, 0] - cells[:, :, 1] if spec.encoding == "ternary" else cells[:, :, 0]
        part = inputs[:, start : start + 128]
        for stream, sign in ((np.maximum(part, 0), 1), (np.maximum(-part, 0), -1)):
            for cycle in range(2):
                nibble = stream // 16**cycle % 16
                for digit in range(digits.shape[2]):
                    steps = nibble @ digits[:, :, digit] / spec.lsb
                    code = np.clip(np.rint(steps), lowest, highest).astype(np.int64)
                    last = digit == spec.weight_bits - 1 and spec.encoding != "ternary" and spec.weight_bits > 1
                    total += sign * 16**cycle * (-(2**digit) if last else 2**digit) * code
    return total * int(spec.lsb)


@pytest.mark.parametrize(("encoding", "weight_bits"), WIDTHS)
def test_ideal_macro_is_the_integer_product(key, encoding, weight_bits):
    @settings(max_examples=4)
    @given(st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
    def check(input_bits, signed, converted, seed):
        spec = ChargeSpec(
            encoding=encoding,
            weight_bits=weight_bits,
            input_bits=input_bits,
            input_format="signed" if signed else "unsigned",
            **{**IDEAL, "adc_bits": 12 if converted else None},
        )
        weights, inputs = draw(np.random.default_rng(seed), spec)
        got = product(key, *floats(weights, inputs), spec)
        np.testing.assert_array_equal(np.asarray(got, np.float64), inputs.astype(np.int64) @ weights)

    check()


def test_five_hundred_rows_of_eight_by_eight_bits_stay_exact(key):
    spec = ChargeSpec(encoding="twos_complement", weight_bits=8, input_bits=8, **IDEAL)
    weights, inputs = draw(np.random.default_rng(0), spec, rows=512)
    weights[:, 0], inputs[1] = -128, 255
    got = product(key, *floats(weights, inputs), spec)
    np.testing.assert_array_equal(np.asarray(got, np.float64), inputs.astype(np.int64) @ weights)


@pytest.mark.parametrize(("encoding", "weight_bits"), [("ternary", 3), ("twos_complement", 4)])
def test_coarse_converters_round_and_saturate_like_the_oracle(key, encoding, weight_bits):
    # an odd step: no sum lies halfway between two codes
    spec = ChargeSpec(encoding=encoding, weight_bits=weight_bits, input_bits=6, lsb=29.0, **QUIET, **UNITS)
    weights, inputs = draw(np.random.default_rng(2), spec, rows=200, vectors=6)
    weights[:, -1], inputs[1:3] = spec.levels[1], 63
    expected = slow_product(weights, inputs, spec)
    assert not np.array_equal(expected, slow_product(weights, inputs, dataclasses.replace(spec, adc_bits=9)))
    assert np.abs(expected - inputs @ weights).max() > 100
    np.testing.assert_array_equal(np.asarray(product(key, *floats(weights, inputs), spec), np.float64), expected)
    exact = dataclasses.replace(spec, adc_bits=12, lsb=1.0)
    np.testing.assert_array_equal(slow_product(weights, inputs, exact), inputs @ weights)


@pytest.mark.parametrize(("encoding", "weight_bits"), WIDTHS)
def test_every_level_is_encoded_and_decoded(encoding, weight_bits):
    spec = ChargeSpec(encoding=encoding, weight_bits=weight_bits)
    levels = np.arange(spec.levels[0], spec.levels[1] + 1)
    cells = charge.encode(jnp.asarray(levels, jnp.int32), spec)
    assert cells.shape == (spec.polarities, spec.digits, len(levels))
    assert spec.polarities * spec.digits == (2 * weight_bits - 2 if encoding == "ternary" else weight_bits)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(cells), 2, 0), [bits_of(int(n), spec) for n in levels])
    np.testing.assert_array_equal(charge.decode(cells, spec), levels)


def test_decoding_takes_any_ternary_digits():
    # the paper's 6 = 8 - 4 + 2, lowest digit first
    cells = jnp.array([[0, 1, 0, 1], [0, 0, 1, 0]], jnp.int8).reshape(2, 4, 1)
    np.testing.assert_array_equal(charge.decode(cells, ChargeSpec(weight_bits=5)), [6])


def line_volts(codes, bits, deviation):
    """Swing of one output line, float64, from capacitors and voltages."""
    capacitors = 1.2e-15 * (1 + np.asarray(deviation, np.float64))
    charges = capacitors * np.asarray(bits, np.float64) * np.asarray(codes, np.float64) * 0.6 / 15
    return charges.sum() / (capacitors.sum() + 80e-15)


def test_charge_sharing_has_the_papers_numbers():
    spec = ChargeSpec()
    assert spec.sharing == pytest.approx(0.6575, abs=5e-5)
    assert spec.lsb_volts == pytest.approx(6.16e-3, abs=5e-6)
    ones = np.ones(128)
    assert line_volts(15 * ones, ones, 0 * ones) == pytest.approx(0.3945, abs=5e-5)
    assert line_volts(15 * ones, ones, 0 * ones) / 64 == pytest.approx(spec.lsb_volts, rel=1e-12)
    # a ternary converter has 128 codes for both signs, one slice 64: 30 products each
    assert spec.codes == (-64, 63)
    assert ChargeSpec(encoding="twos_complement").codes == (0, 63)


def smooth(deviation, level, bits, spec):
    share = charge.charge_share(deviation, 0, spec).reshape(1, 1, 128, 1)
    return charge.accumulate(level.reshape(1, 128), bits.reshape(1, 1, 128, 1), share, spec)[0, 0, 0]


def test_mismatched_capacitors_share_charge_like_the_reference():
    rng = np.random.default_rng(3)
    spec = ChargeSpec(encoding="twos_complement")
    codes, bits = rng.integers(0, 16, 128), rng.integers(0, 2, 128)
    deviation = 0.1 * rng.standard_normal(128)
    got = smooth(*floats(deviation, codes, bits), spec)
    assert float(got) == pytest.approx(line_volts(codes, bits, deviation) / spec.lsb_volts, rel=1e-5)
    # finite differences of the float64 reference, where all is smooth
    to_deviation, to_level = jax.grad(smooth, argnums=(0, 1))(*floats(deviation, codes, bits), spec)
    for line in range(0, 128, 17):
        bump = 1e-4 * (np.arange(128) == line)
        ahead, behind = (line_volts(codes, bits, deviation + sign * bump) for sign in (1, -1))
        slope = (ahead - behind) / 2e-4 / spec.lsb_volts
        assert float(to_deviation[line]) == pytest.approx(slope, rel=1e-3, abs=1e-5)
        ahead, behind = (line_volts(codes + sign * bump, bits, deviation) for sign in (1, -1))
        slope = (ahead - behind) / 2e-4 / spec.lsb_volts
        assert float(to_level[line]) == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_a_read_with_mismatch_is_the_reference_read(key):
    spec = ChargeSpec(encoding="twos_complement", weight_bits=1, **{**IDEAL, "adc_bits": None}, capacitor_sigma=0.05)
    weights, inputs = draw(np.random.default_rng(4), dataclasses.replace(spec, input_format="unsigned"), rows=128)
    chip = charge.program(key, *floats(weights), spec)
    got = charge.read(key, chip, *floats(inputs), spec)
    share = np.asarray(chip.blocks.share, np.float64)[0, 0, 0]
    np.testing.assert_allclose(got, np.einsum("bm,mn,mn->bn", inputs, weights, share), rtol=1e-5)
    assert np.abs(np.asarray(got) - inputs @ weights).max() > 1


NOISY = ChargeSpec(weight_bits=3, gain_sigma=0.02, offset_lsb=0.5, capacitor_sigma=0.01, inl_lsb=0.3)


def operands(key):
    first, second, third = jax.random.split(key, 3)
    weights = jax.random.normal(first, (20, 5))
    return weights, jax.random.normal(second, (6, 20)), jax.random.normal(third, (6, 5))


@pytest.mark.parametrize("changes", [{}, {"encoding": "twos_complement", "weight_bits": 4, "adc_bits": None}])
def test_gradient_is_the_dense_one(key, changes):
    weights, inputs, cotangent = operands(key)
    spec = dataclasses.replace(NOISY, **changes)
    forward, backward = jax.vjp(lambda w, x: product(key, w, x, spec), weights, inputs)
    assert np.abs(np.asarray(forward - inputs @ weights)).max() > 1e-2
    to_weights, to_inputs = backward(cotangent)
    w, x, g = (np.asarray(a, np.float64) for a in (weights, inputs, cotangent))
    np.testing.assert_allclose(to_weights, x.T @ g, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_inputs, g @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("input_format", "lowest"), [("signed", -1.5), ("unsigned", 0.0)])
def test_gradient_is_that_of_clipped_inputs(key, input_format, lowest):
    spec = dataclasses.replace(NOISY, input_scale=0.1, input_format=input_format)
    weights, inputs, cotangent = operands(key)
    inputs = inputs.at[0, :3].set(jnp.array([1.6, -1.6, 40.0], jnp.float32))
    got = jax.vjp(lambda w, x: product(key, w, x, spec), weights, inputs)[1](cotangent)
    expected = jax.vjp(lambda w, x: jnp.clip(x, lowest, 1.5) @ w, weights, inputs)[1](cotangent)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_one_key_is_one_chip_and_vmap_a_loop(key):
    weights, inputs, _ = operands(key)
    spec = dataclasses.replace(NOISY, adc_bits=None)
    keys = jax.random.split(key, 3)
    chips = jax.vmap(charge.program, in_axes=(0, None, None))(keys, weights, spec)
    for place in range(3):
        chip = charge.program(keys[place], weights, spec)
        jax.tree.map(
            lambda one, many, place=place: np.testing.assert_allclose(one, many[place], rtol=1e-6), chip, chips
        )
    assert np.abs(np.asarray(chips.blocks.gain[0] - chips.blocks.gain[1])).max() > 1e-3
    together = jax.vmap(product, in_axes=(0, None, None, None))(keys, weights, inputs, spec)
    apart = np.stack([product(k, weights, inputs, spec) for k in keys])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(apart[0], product(keys[0], weights, inputs, spec))
    # one chip, another read: only the noise differs
    chip = charge.program(keys[0], weights, spec)
    first, second = (charge.read(k, chip, inputs, spec) for k in keys[:2])
    assert np.abs(np.asarray(first - second)).max() > 1e-3


def test_scan_reads_one_chip_step_by_step(key):
    weights, inputs, _ = operands(key)
    chip = charge.program(key, weights, NOISY)
    keys = jax.random.split(key, 6)

    def step(carry, part):
        own, vector = part
        return carry, charge.read(own, chip, vector, NOISY)

    _, scanned = jax.lax.scan(step, 0, (keys, inputs))
    for place in range(6):
        apart = charge.read(keys[place], chip, inputs[place], NOISY)
        np.testing.assert_allclose(scanned[place], apart, rtol=1e-5, atol=1e-5)


def test_nothing_is_weakly_typed(key):
    weights, inputs, _ = operands(key)
    chip = charge.program(key, weights, NOISY)
    fitted = calibrate(key, chip, NOISY, repeats=1, master_degree=2)
    for leaf in jax.tree.leaves((chip, fitted, charge.read(key, fitted, inputs, NOISY))):
        assert not leaf.weak_type
    low = charge.read(key, chip, inputs.astype(jnp.bfloat16), NOISY)
    assert low.dtype == jnp.float32


# one slice or pair, whose error is that of its conversions
SINGLE = {
    "ternary": ChargeSpec(weight_bits=2, input_format="unsigned", **UNITS, gain_sigma=0.05, offset_lsb=2.0),
    "twos_complement": ChargeSpec(
        encoding="twos_complement", weight_bits=1, input_format="unsigned", **UNITS, gain_sigma=0.05, offset_lsb=2.0
    ),
}


@pytest.mark.parametrize("encoding", SINGLE)
def test_calibration_leaves_the_noise_floor(key, encoding):
    spec = SINGLE[encoding]
    rng = np.random.default_rng(5)
    weights = rng.integers(spec.levels[0], 2, (128, 12))
    # half of full swing, so that no slice saturates
    inputs = rng.integers(4, 12, (400, 128))
    chip = charge.program(key, *floats(weights), spec)
    fitted = calibrate(key, chip, spec)
    np.testing.assert_allclose(fitted.blocks.slope, chip.blocks.gain, atol=0.01)
    # beside the offset, the line takes up a little of what saturation and DACs do
    np.testing.assert_allclose(fitted.blocks.intercept, chip.blocks.offset, atol=0.3)

    def error(chip):
        got = charge.read(key, chip, *floats(inputs), spec)
        return (np.asarray(got, np.float64) - inputs @ weights) / spec.lsb

    floor = np.sqrt(0.35**2 + 1 / 12)
    assert error(chip).std() > 2 * floor
    # gains scatter the floor, DACs and the fit add a little
    assert floor * 0.95 < error(fitted).std() < floor * 1.15
    assert np.abs(error(fitted).mean(axis=0)).max() < 0.3
    # nothing to correct: calibration changes nothing but float32 noise
    clean = dataclasses.replace(spec, gain_sigma=0.0, offset_lsb=0.0, adc_bits=None, **QUIET)
    same = calibrate(key, charge.program(key, *floats(weights), clean), clean, repeats=1).blocks
    np.testing.assert_allclose(same.slope, 1.0, atol=1e-5)
    np.testing.assert_allclose(same.intercept, 0.0, atol=1e-4)


@pytest.mark.parametrize("encoding", SINGLE)
def test_master_curve_takes_the_shared_bend_out(key, encoding):
    spec = dataclasses.replace(SINGLE[encoding], inl_lsb=1.5, noise_lsb=0.1)
    chip = charge.program(key, jnp.ones((128, 8)), spec)
    straight, curved = (calibrate(key, chip, spec, master_degree=degree) for degree in (0, 5))
    counts = np.arange(8, 120, 4)
    inputs = 15 * (np.arange(128) < counts[:, None])

    def error(chip):
        keys = jax.random.split(key, 20)
        got = np.mean([charge.read(k, chip, *floats(inputs), spec) for k in keys], axis=0)
        return np.abs(got.mean(axis=1) / spec.lsb - 0.5 * counts).max()

    # the largest bend of a cubic Legendre polynomial inside its range is .447 of its factor
    assert 0.447 * 1.5 * 0.9 < error(straight) < 1.5
    assert error(curved) < 0.25
    assert float(curved.master[3]) == pytest.approx(1.5, abs=0.15)


def test_a_dead_slice_stays_finite(key):
    spec = dataclasses.replace(SINGLE["twos_complement"], offset_lsb=1e4)
    fitted = calibrate(key, charge.program(key, jnp.ones((4, 3)), spec), spec, repeats=1)
    np.testing.assert_array_equal(fitted.blocks.slope, 1.0)
    assert np.isfinite(np.asarray(fitted.blocks.intercept)).all()


def estimate(name, key):
    """The standard deviation of what a parameter spreads, in the parameter's own unit, and of how many draws."""
    spec = ChargeSpec(weight_bits=3, **{**QUIET, "adc_bits": None, **UNITS, name: SIGMAS[name]})
    chip = charge.program(key, jnp.ones((256, 250)), spec)
    if name == "noise_lsb":
        values = charge.read(key, chip, jnp.zeros((4, 256)), dataclasses.replace(spec, input_format="unsigned"))
        # two blocks, places 1 and 2
        values = np.asarray(values) / spec.lsb / np.sqrt(2 * (1 + 4))
    elif name == "residue_volts":
        values = np.asarray(chip.blocks.offset) * spec.lsb_volts / np.sqrt(2)
    elif name == "dac_volts":
        values = np.asarray(chip.blocks.dac.sum(axis=2)) * spec.full_scale_volts / 15
    elif name == "capacitor_sigma":
        share = np.asarray(chip.blocks.share[0, 0, 0, :, :100], np.float64)
        # sharing takes the line's mean out in part
        values = share / share.mean(axis=0, keepdims=True)
    elif name == "inl_spread_lsb":
        values = np.asarray(chip.blocks.bend)
    else:
        values = np.asarray(chip.blocks.gain if name == "gain_sigma" else chip.blocks.offset)
    return values.std(), values.size


SIGMAS = {
    "noise_lsb": 0.35,
    "residue_volts": 0.6e-3,
    "dac_volts": 1.56e-3,
    "capacitor_sigma": 0.02,
    "gain_sigma": 0.05,
    "offset_lsb": 1.5,
    "inl_spread_lsb": 0.4,
}


@pytest.mark.parametrize("name", SIGMAS)
def test_spread_is_as_stated(key, name):
    measured, draws = estimate(name, key)
    # five standard errors: a wrong factor of sqrt(2), or even of 1.25 for the 256 DACs, is refused
    tolerance = 5 / np.sqrt(2 * draws)
    assert tolerance < 0.25
    assert measured == pytest.approx(SIGMAS[name], rel=tolerance)


def test_dac_branches_vary_as_their_sizes(key):
    chip = charge.program(key, jnp.ones((128 * 30, 1)), ChargeSpec())
    spread = np.asarray(chip.blocks.dac).std(axis=(0, 1))
    np.testing.assert_allclose(spread / spread[0], np.sqrt([1, 2, 4, 8]), rtol=0.08)
    np.testing.assert_allclose(
        charge.drive(jnp.full((1, 128), 5), chip.blocks.dac[0], ChargeSpec())[0],
        5 + chip.blocks.dac[0, :, 0] + chip.blocks.dac[0, :, 2],
        rtol=1e-6,
    )


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="VALID", feature_group_count=2, use_bias=False)(x))
        return nn.Dense(3, use_bias=False)(x.reshape(x.shape[0], -1))


def test_networks_run_on_macros(key):
    images = jax.random.normal(key, (2, 8, 8, 2))
    params = Cnn().init(key, images)
    fine = capram(encoding="twos_complement", weight_bits=8, input_bits=8, adc_bits=None, **QUIET)
    got = jax.jit(simulate(Cnn().apply, fine))(key, params, images)
    expected = Cnn().apply(params, images)
    # 144 rows: the dense layer takes two blocks
    np.testing.assert_allclose(got, expected, atol=0.02 * float(jnp.abs(expected).max()))
    table = report(Cnn().apply, capram(), params, images)
    assert [row.crossbars for row in table.rows] == [1, 1]


def test_calibrated_macros_train_straight_through(key):
    weights, inputs, cotangent = operands(key)
    noisy = jax.jit(simulate(lambda w, x: x @ w, capram(NOISY, calibrated=True)))
    output, backward = jax.vjp(lambda w: noisy(key, w, inputs), weights)
    assert np.isfinite(np.asarray(output)).all()
    np.testing.assert_allclose(backward(cotangent)[0], np.asarray(inputs.T @ cotangent), rtol=1e-4, atol=1e-4)


BAD = {
    "encoding": [("offset", "'twos_complement', 'ternary'")],
    "weight_bits": [(4, "one of 2, 3, 5 for the encoding 'ternary'"), (1, "2, 3, 5"), (True, "whole number")],
    "input_bits": [(0, "at least 1"), (9, "at most 8")],
    "adc_bits": [(1, "at least 2"), (15, "at most 14")],
    "copies": [(0, "at least 1"), (129, "at most 128")],
    "lsb": [(0.0, "above 0"), (float("inf"), "finite")],
    "full_scale_volts": [(0.0, "above 0")],
    "unit_farads": [(-1e-15, "above 0")],
    "line_farads": [(0, "above 0")],
    "dac_volts": [(-1.0, "below 0")],
    "residue_volts": [(-1.0, "below 0")],
    "noise_lsb": [(-0.1, "below 0"), (float("nan"), "number")],
    "capacitor_sigma": [(-0.1, "below 0")],
    "gain_sigma": [(-0.1, "below 0"), (float("inf"), "finite")],
    "offset_lsb": [(-0.1, "below 0")],
    "inl_lsb": [(-0.1, "below 0")],
    "inl_spread_lsb": [(-0.1, "below 0")],
    "input_format": [("float", "'signed', 'unsigned'")],
    "input_scale": [(0.0, "above 0"), ("mean", "'max'")],
    "weight_scale": [(-1.0, "above 0"), ("mean", "'max', 'grid'")],
}


def test_every_field_is_checked():
    assert set(BAD) == {field.name for field in dataclasses.fields(ChargeSpec)}


@pytest.mark.parametrize(("name", "value", "allowed"), [(n, v, a) for n, cases in BAD.items() for v, a in cases])
def test_bad_numbers_are_named(name, value, allowed):
    with pytest.raises(ValueError, match=rf"^{name} must .*{allowed}.*got ") as error:
        ChargeSpec(**{name: value})
    assert repr(value) in str(error.value)


def test_twos_complement_names_its_widths():
    with pytest.raises(ValueError, match=r"^weight_bits must be one of 1, 2, 4, 8 for the .*'twos_complement', got 3$"):
        ChargeSpec(encoding="twos_complement", weight_bits=3)


def test_bad_arguments_are_named(key):
    with pytest.raises(ValueError, match=r"^weights must have 2 axes, got shape \(3,\)"):
        charge.program(key, jnp.ones(3), NOISY)
    chip = charge.program(key, jnp.ones((3, 2)), NOISY)
    with pytest.raises(ValueError, match=r"^inputs must be vectors of 3 rows, .* got shape \(5, 4\)"):
        charge.read(key, chip, jnp.ones((5, 4)), NOISY)
    with pytest.raises(ValueError, match=r"^repeats must be a whole number of at least 1, got 0"):
        calibrate(key, chip, NOISY, repeats=0)
    with pytest.raises(ValueError, match=r"^master_degree must be .* at least 2 and at most 7, got 1"):
        calibrate(key, chip, NOISY, master_degree=1)
    with pytest.raises(ValueError, match=r"capram takes the fields encoding.*got 'nosie'"):
        capram(nosie=1)
