"""A compiled chip gives the numbers of reading every fragment and bit, and says by which path and why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analog import CrossbarSpec, compile_chip, compiled_integers, program, read, read_compiled
from modicum.analog.compiled import PATHS
from tests.analog.oracle import draw_codes, draw_levels, read_all, store, whole

pytestmark = pytest.mark.optimized

ROWS, COLUMNS, VECTORS = 19, 3, 4

# what is expected first is the cheapest path
CASES = {
    "exact converter": (CrossbarSpec(weight_scale=1.0), "fold"),
    "clipping": (CrossbarSpec(adc_bits=3, weight_scale=1.0, weight_bits=4, cell_bits=3), "table"),
    "varied": (CrossbarSpec(sigma=0.1, weight_scale=1.0, encoding="polarized", input_bits=3), "table"),
    "16 rows": (CrossbarSpec(fragment=16, adc_bits=4, adc_mode="clip", weight_scale=1.0, input_bits=4), "packed"),
    "isaac": (
        CrossbarSpec(fragment=128, adc_bits=4, encoding="offset", weight_scale=1.0, input_format="unsigned"),
        "packed",
    ),
    "16 varied rows": (CrossbarSpec(fragment=16, adc_bits=5, sigma=0.1, weight_scale=1.0, input_bits=3), "direct"),
}


@pytest.mark.parametrize(("spec", "cheapest"), CASES.values(), ids=CASES)
def test_every_path_is_the_oracle(spec, cheapest):
    @jax.jit
    def products(chip, codes):
        return {path: compiled_integers(compile_chip(chip, spec, path), codes) for path in exact}

    levels = draw_levels(np.random.default_rng(11), ROWS, COLUMNS, spec)
    chip = program(jax.random.key(1), jnp.asarray(levels, jnp.float32), spec)
    chosen = compile_chip(chip, spec)
    assert chosen.path == cheapest
    assert chosen.why
    exact = [path for path in PATHS[PATHS.index(cheapest) :] if path != "table" or spec.fragment <= 9]
    exact = [path for path in exact if path != "packed" or spec.sigma == 0]

    @settings(max_examples=8)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        levels, codes = draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)
        chip = program(jax.random.key(seed % 7), jnp.asarray(levels, jnp.float32), spec)
        _, signs, flips = store(levels, spec)
        expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
        if spec.sigma > 0 and tie <= 1e-5:
            return  # a current on a rounding tie: float64 and float32 may differ
        for path, limbs in products(chip, jnp.asarray(codes, jnp.int32)).items():
            np.testing.assert_array_equal(whole(limbs, spec, ROWS), expected, err_msg=path)

    check()


def test_a_certificate_of_the_columns_folds_what_the_spec_cannot(key):
    spec = CrossbarSpec(adc_bits=3, adc_mode="clip", weight_scale=1.0)
    small = jnp.ones((16, 2))
    full = small.at[0:8, 0].set(spec.levels)
    inputs = jax.random.uniform(key, (5, 16))
    for weights, path in ((small, "table"), (small.at[::2].set(0), "fold"), (full, "table")):
        # 8 cells of level 1 make a current of 8, one more than a converter of 3 bits has steps
        chip = program(key, weights, spec)
        compiled = compile_chip(chip, spec)
        assert compiled.path == path
        np.testing.assert_array_equal(
            np.asarray(read_compiled(key, compiled, inputs)), np.asarray(read(key, chip, inputs, spec))
        )
    assert "no column of this chip" in compile_chip(program(key, small.at[::2].set(0), spec), spec).why


def test_gradient_vmap_and_one_compilation(key):
    spec = CrossbarSpec(sigma=0.1, weight_scale=0.1, input_scale=0.01)
    weights, inputs = jax.random.normal(key, (16, 3)), 3 * jax.random.normal(key, (6, 16))
    chip = program(key, weights, spec)

    def loss(inputs, reader):
        return jnp.sum(jnp.sin(reader(inputs)))

    compiled = compile_chip(chip, spec)
    expected = jax.grad(loss)(inputs, lambda x: read(key, chip, x, spec))
    got = jax.grad(loss)(inputs, lambda x: read_compiled(key, compiled, x))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))
    assert float(jnp.abs(got).max()) > 0

    # Monte-Carlo: a batch of compiled chips is one pytree
    keys = jax.random.split(key, 3)
    chips = jax.vmap(lambda k: compile_chip(program(k, weights, spec), spec))(keys)
    assert chips.path == "table"
    several = jax.jit(jax.vmap(read_compiled, in_axes=(None, 0, None)))
    together = several(key, chips, inputs)
    apart = [read(key, program(k, weights, spec), inputs, spec) for k in keys]
    np.testing.assert_array_equal(np.asarray(together), np.stack(apart))
    several(key, jax.tree.map(jnp.copy, chips), inputs + 1)
    assert several._cache_size() == 1


def test_a_path_that_gives_other_numbers_is_refused(key):
    spec = CrossbarSpec(fragment=16, adc_bits=4, sigma=0.1)
    chip = program(key, jnp.ones((16, 2)), spec)
    with pytest.raises(ValueError, match=r"path must be one of 'direct' on this chip, .* got 'packed'"):
        compile_chip(chip, spec, "packed")
