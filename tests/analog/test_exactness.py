"""Every path gives the integers of a read-by-read NumPy oracle, error 0; ideal reads give the matmul."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analog import CrossbarSpec, certify, integer_product, program, read, read_path
from tests.analog.oracle import draw_codes, draw_levels, read_all, store, whole

ROWS, COLUMNS, VECTORS = 21, 4, 5

# (fragment, weight bits, cell bits, input bits): fragments that divide nothing, partly filled top cells, one row
SHAPES = [(1, 2, 1, 3), (3, 4, 2, 8), (4, 8, 2, 8), (8, 8, 2, 6), (9, 4, 2, 8), (16, 5, 3, 4), (32, 8, 1, 8)]
CODINGS = list(itertools.product(("differential", "polarized"), ("signed", "unsigned")))
CASES = [(shape, (place + turn) % 4) for place, shape in enumerate(SHAPES) for turn in (0, 3)]


def product(chip, codes, spec, path=None):
    limbs = jax.jit(lambda chip, codes: integer_product(chip, codes, spec, path))(chip, jnp.asarray(codes, jnp.int32))
    return whole(limbs, spec, codes.shape[1])


def paths(spec):
    return ("table", "direct") if spec.fragment <= 9 else ("direct",)


@pytest.mark.parametrize(("shape", "number"), CASES, ids=str)
def test_product_is_the_matmul(key, shape, number):
    fragment, weight_bits, cell_bits, input_bits = shape
    encoding, input_format = CODINGS[number]
    spec = CrossbarSpec(
        fragment=fragment,
        weight_bits=weight_bits,
        cell_bits=cell_bits,
        input_bits=input_bits,
        adc_bits=None,
        encoding=encoding,
        input_format=input_format,
        weight_scale=0.25,
        on_off_ratio=(None, 10)[number % 2],
    )
    rng = np.random.default_rng(number)
    levels, codes = draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)
    expected = codes.astype(np.int64) @ levels
    ideal = program(key, jnp.asarray(0.25 * levels, jnp.float32), spec)
    np.testing.assert_array_equal(product(ideal, codes, spec), expected)
    # the same through a converter that is just large enough, by every path
    mode = ("flip", "clip")[number // 2]
    real = CrossbarSpec(**{**vars(spec), "adc_mode": mode, "adc_bits": 8})
    real = CrossbarSpec(**{**vars(real), "adc_bits": real.exact_adc_bits})
    chip = program(key, jnp.asarray(0.25 * levels, jnp.float32), real)
    for path in ("fold", *paths(real)):
        np.testing.assert_array_equal(product(chip, codes, real, path), expected, err_msg=path)


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("fragment", "adc_bits", "adc_mode", "variation", "changes"),
    [
        (4, 3, "clip", "lognormal", {}),
        (8, 4, "flip", "lognormal", {"encoding": "polarized"}),
        (9, 4, "clip", "lognormal", {"weight_bits": 4, "input_format": "unsigned"}),
        (2, 2, "clip", "gaussian", {"on_off_ratio": 8.0}),
        (16, 5, "flip", "gaussian", {"cell_bits": 3}),
        (24, 4, "clip", "lognormal", {"input_bits": 12, "encoding": "polarized"}),
    ],
)
def test_varied_reads_through_a_clipping_adc(key, fragment, adc_bits, adc_mode, variation, changes):
    spec = CrossbarSpec(
        fragment=fragment, adc_bits=adc_bits, adc_mode=adc_mode, variation=variation, sigma=0.1, weight_scale=1.0
    )
    spec = CrossbarSpec(**{**vars(spec), **changes})
    rng = np.random.default_rng(7)
    levels, codes = draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert tie > 1e-5, "a current lies on a rounding tie: choose another seed"
    assert not np.array_equal(expected, codes @ levels), "neither clipping nor variation did anything"
    for path in paths(spec):
        np.testing.assert_array_equal(product(chip, codes, spec, path), expected, err_msg=path)


@pytest.mark.parametrize("encoding", ["differential", "polarized"])
@pytest.mark.parametrize("adc_bits", [None, 4])
def test_programming_stores_the_oracles_cells(key, encoding, adc_bits):
    spec = CrossbarSpec(encoding=encoding, adc_bits=adc_bits, weight_scale=1.0, on_off_ratio=4.0)
    # not polarized: the fragment's stronger sign wins, the other weights are lost
    levels = np.random.default_rng(3).integers(-spec.levels, spec.levels + 1, (ROWS, COLUMNS))
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    cells, signs, flips = store(levels, spec)
    np.testing.assert_array_equal(np.asarray(chip.conductance), cells + 1.0)
    np.testing.assert_array_equal(np.asarray(chip.sign), signs)
    np.testing.assert_array_equal(np.asarray(chip.flipped), flips)
    assert flips.any() == (adc_bits == 4)


FORMS_BITS = {4: 3, 8: 4, 16: 5}


@pytest.mark.parametrize("fragment", FORMS_BITS)
def test_flip_is_exact_at_the_bits_forms_states(fragment):
    spec = CrossbarSpec(fragment=fragment, adc_bits=FORMS_BITS[fragment], weight_scale=1.0, encoding="polarized")
    assert spec.linear
    assert spec.exact_adc_bits == FORMS_BITS[fragment]
    key = jax.random.key(0)
    path = paths(spec)[0]

    @jax.jit
    def run(levels, codes):
        chip = program(key, levels, spec)
        return integer_product(chip, codes, spec, path), certify(chip, spec)

    @settings(max_examples=150)
    @given(st.integers(0, 2**32 - 1), st.sampled_from((0.0, 0.5, 0.9, 1.0)))
    def check(seed, fullness):
        rng = np.random.default_rng(seed)
        levels = draw_levels(rng, 2 * fragment, COLUMNS, spec)
        # heavy columns are what saturates
        levels = np.where(rng.random(levels.shape) < fullness, np.sign(levels) * spec.levels, levels)
        codes = draw_codes(rng, VECTORS, 2 * fragment, spec)
        limbs, certified = run(jnp.asarray(levels, jnp.float32), jnp.asarray(codes, jnp.int32))
        np.testing.assert_array_equal(whole(limbs, spec, 2 * fragment), codes @ levels)
        assert certified.all()

    check()


@pytest.mark.parametrize("fragment", FORMS_BITS)
def test_without_flip_those_bits_clip(key, fragment):
    spec = CrossbarSpec(fragment=fragment, adc_bits=FORMS_BITS[fragment], adc_mode="clip", weight_scale=1.0)
    assert not spec.linear
    levels = np.full((fragment, 1), spec.levels)
    codes = np.full((1, fragment), spec.input_levels)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    assert not certify(chip, spec).any()
    assert product(chip, codes, spec, paths(spec)[0])[0, 0] < (codes @ levels)[0, 0]


@pytest.mark.optimized
def test_sixteen_bit_inputs_and_weights_take_limbs(key):
    spec = CrossbarSpec(weight_bits=16, input_bits=16, adc_bits=4, weight_scale=1.0)
    rng = np.random.default_rng(0)
    levels, codes = draw_levels(rng, 200, 3, spec), draw_codes(rng, 40, 200, spec)
    expected = codes.astype(np.int64) @ levels
    assert np.abs(expected).max() > 2**31
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    for path in ("fold", "table"):
        np.testing.assert_array_equal(product(chip, codes, spec, path), expected)


@pytest.mark.optimized
def test_fold_in_blocks_is_exact(key):
    # 255 * 127 * 600 exceeds 2^24: one float32 matmul would round
    spec = CrossbarSpec(adc_bits=None, weight_scale=1.0)
    rng = np.random.default_rng(1)
    levels, codes = draw_levels(rng, 1200, 3, spec), draw_codes(rng, 4, 1200, spec)
    levels[:, 0], codes[1] = 127, 255
    codes[2, ::2] = 254
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    np.testing.assert_array_equal(product(chip, codes, spec), codes @ levels)


def test_paths_are_chosen_by_what_they_cost():
    assert read_path(CrossbarSpec(adc_bits=None, sigma=0.3), 1) == "fold"
    assert read_path(CrossbarSpec(adc_bits=4), 1000) == "fold"
    assert read_path(CrossbarSpec(adc_bits=4, sigma=0.1), 1000) == "table"
    assert read_path(CrossbarSpec(adc_bits=3), 1000) == "table"
    assert read_path(CrossbarSpec(adc_bits=4, sigma=0.1, input_bits=1), 4) == "direct"
    assert read_path(CrossbarSpec(adc_bits=4, sigma=0.1, fragment=16), 1000) == "direct"


@pytest.mark.parametrize("adc_bits", [None, 4])
def test_read_scales_the_integers(key, adc_bits):
    spec = CrossbarSpec(adc_bits=adc_bits, weight_scale=2.0**-6, input_scale=2.0**-7, input_bits=7)
    rng = np.random.default_rng(5)
    levels, codes = draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)
    chip = program(key, jnp.asarray(levels * 2.0**-6, jnp.float32), spec)
    got = read(key, chip, jnp.asarray(codes * 2.0**-7, jnp.float32), spec)
    np.testing.assert_array_equal(np.asarray(got), ((codes @ levels) * 2.0**-13).astype(np.float32))
    single = read(key, chip, jnp.asarray(codes[1] * 2.0**-7, jnp.float32), spec)
    np.testing.assert_array_equal(np.asarray(single), np.asarray(got[1]))


def test_an_ideal_converter_on_varied_cells_is_linear(key):
    spec = CrossbarSpec(adc_bits=None, sigma=0.2, weight_scale=1.0, input_scale=1.0, on_off_ratio=20.0)
    rng = np.random.default_rng(6)
    levels, codes = draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)
    chip = program(key, jnp.asarray(levels, jnp.float32), spec)
    g = np.asarray(chip.conductance, np.float64) - spec.off_conductance
    places = 4.0 ** np.arange(spec.cells)
    effective = np.einsum("pcfmn,c,pfn->fmn", g, places, np.asarray(chip.sign)).reshape(-1, COLUMNS)[:ROWS]
    got = np.asarray(read(key, chip, jnp.asarray(codes, jnp.float32), spec))
    np.testing.assert_allclose(got, codes @ effective, rtol=0, atol=1e-5 * np.abs(codes @ effective).max())
    assert np.abs(got - codes @ levels).max() > 100
