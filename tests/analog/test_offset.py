"""ISAAC's encoding: biased weights, a unit column, flips; error 0 against int64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analog import CrossbarSpec, certify, held_weights, integer_product, mapping_error, program, read
from tests.analog.oracle import draw_codes, draw_levels, read_all, store, whole

# (fragment, weight bits, cell bits, input bits, mode, input format)
GRID = [
    (128, 8, 2, 8, "flip", "signed"),
    (128, 16, 2, 16, "flip", "unsigned"),
    (128, 4, 3, 4, "clip", "signed"),
    (9, 4, 1, 4, "clip", "unsigned"),
    (8, 8, 2, 4, "flip", "signed"),
    (3, 2, 1, 8, "flip", "unsigned"),
]


def spec_of(fragment, weight_bits, cell_bits, input_bits, adc_mode, input_format):
    spec = CrossbarSpec(
        fragment=fragment,
        weight_bits=weight_bits,
        cell_bits=cell_bits,
        input_bits=input_bits,
        adc_bits=12,
        adc_mode=adc_mode,
        input_format=input_format,
        encoding="offset",
        weight_scale=1.0,
        input_scale=1.0,
    )
    return CrossbarSpec(**{**vars(spec), "adc_bits": spec.exact_adc_bits})


@pytest.mark.parametrize("number", range(len(GRID)))
def test_every_path_is_the_int64_product(key, number):
    spec = spec_of(*GRID[number])
    assert spec.linear
    rows = min(2 * spec.fragment - 1, 150)
    columns, vectors = 3, 4
    paths = ["fold", "direct"] + ["table"] * (spec.fragment <= 9)

    @jax.jit
    def run(levels, codes):
        chip = program(key, levels, spec)
        return [integer_product(chip, codes, spec, path) for path in paths], certify(chip, spec)

    @settings(max_examples=12)
    @given(st.integers(0, 2**32 - 1), st.sampled_from((0.0, 0.5, 1.0)), st.sampled_from((-1, 1)))
    def check(seed, fullness, sign):
        rng = np.random.default_rng(seed)
        levels = draw_levels(rng, rows, columns, spec)
        levels = np.where(rng.random(levels.shape) < fullness, sign * spec.levels, levels)
        codes = draw_codes(rng, vectors, rows, spec)
        products, certified = run(jnp.asarray(levels, jnp.float32), jnp.asarray(codes, jnp.int32))
        for path, limbs in zip(paths, products, strict=True):
            np.testing.assert_array_equal(whole(limbs, spec, rows), codes @ levels, err_msg=path)
        assert certified.all()

    check()


def test_isaacs_numbers():
    # 16-bit weights in 8 cells of 2 bits, 128 rows, an 8-bit converter: one bit less than equation 2 asks for
    isaac = CrossbarSpec(fragment=128, weight_bits=16, input_bits=16, adc_bits=8, encoding="offset", weight_scale="max")
    assert (isaac.cells, isaac.bias, isaac.polarities) == (8, 2**15, 1)
    assert isaac.exact_adc_bits == 8
    assert CrossbarSpec(**{**vars(isaac), "adc_mode": "clip"}).exact_adc_bits == 9
    assert isaac.linear


@pytest.mark.parametrize("adc_bits", [None, 5])
def test_programming_stores_biased_cells(key, adc_bits):
    spec = CrossbarSpec(encoding="offset", adc_bits=adc_bits, weight_scale=1.0, on_off_ratio=4.0)
    levels = np.random.default_rng(3).integers(-spec.levels, spec.levels + 1, (21, 4))
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    cells, signs, flips = store(levels, spec)
    np.testing.assert_array_equal(np.asarray(chip.conductance), cells + 1.0)
    np.testing.assert_array_equal(np.asarray(chip.sign), signs)
    np.testing.assert_array_equal(np.asarray(chip.flipped), flips)
    assert flips.any() == (adc_bits is not None)
    if adc_bits is None:
        digits = 4 ** np.arange(4)
        np.testing.assert_array_equal(np.einsum("cfmn,c->fmn", cells[0], digits).reshape(-1, 4)[:21], levels + 128)


def test_any_weight_is_held(key):
    weights = jax.random.normal(key, (20, 3))
    offset, differential = (
        CrossbarSpec(encoding=encoding, weight_scale=0.02) for encoding in ("offset", "differential")
    )
    np.testing.assert_allclose(held_weights(weights, offset), held_weights(weights, differential), rtol=1e-6)
    assert float(mapping_error(held_weights(weights, offset), offset)) == 0


@pytest.mark.parametrize("fragment", [4, 20])
def test_varied_reads_through_a_clipping_converter(key, fragment):
    spec = CrossbarSpec(fragment=fragment, adc_bits=3, sigma=0.1, encoding="offset", weight_scale=1.0, input_bits=3)
    rng = np.random.default_rng(5)
    levels, codes = draw_levels(rng, 21, 4, spec), draw_codes(rng, 5, 21, spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert tie > 1e-5
    assert not np.array_equal(expected, codes @ levels)
    for path in ("table", "direct") if fragment <= 9 else ("direct",):
        limbs = integer_product(chip, jnp.asarray(codes, jnp.int32), spec, path)
        np.testing.assert_array_equal(whole(limbs, spec, 21), expected, err_msg=path)


def test_variation_weighs_more_than_in_differential_columns(key):
    # every weight stores about half the range, so that even zeros are uncertain
    weights, inputs = 0.05 * jax.random.normal(key, (64, 16)).at[0, 0].set(20.0), jnp.ones((1, 64))
    errors = {}
    for encoding in ("offset", "differential"):
        spec = CrossbarSpec(encoding=encoding, sigma=0.1, adc_bits=None, weight_scale="max", weight_bits=4)
        got = read(key, program(key, weights, spec), inputs, spec)
        errors[encoding] = float(jnp.std(got - inputs @ weights))
    assert errors["offset"] > 2 * errors["differential"]


def test_gradient_is_the_dense_one_and_vmap_a_loop(key):
    spec = CrossbarSpec(
        fragment=20, adc_bits=5, sigma=0.1, encoding="offset", weight_bits=4, input_bits=3, weight_scale=0.2
    )
    weights, inputs = jax.random.normal(key, (20, 3)), jax.random.normal(key, (4, 20))

    @jax.jit
    def outputs(key, weights):
        return read(key, program(key, weights, spec), inputs, spec)

    keys = jax.random.split(key, 2)
    together = jax.vmap(outputs, in_axes=(0, None))(keys, weights)
    np.testing.assert_array_equal(together, jnp.stack([outputs(k, weights) for k in keys]))
    to_weights = jax.grad(lambda w: outputs(key, w).sum())(weights)
    np.testing.assert_allclose(to_weights, np.broadcast_to(np.asarray(inputs).sum(0)[:, None], (20, 3)), rtol=1e-5)
