"""IR drop: the quotient form against exact nodal solutions, and where its cells lie on the chip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import CrossbarSpec, fold_wires, integer_product, ir_drop, limb_bits, program, read, reading_spec
from tests.analog.nodal import assembled, effective
from tests.analog.oracle import draw_codes, draw_levels, read_all, store, whole


def array_of(kind, rows, columns):
    rng = np.random.default_rng(rows + columns)
    kinds = {
        "full": np.ones((rows, columns)),
        "uniform": rng.uniform(0, 1, (rows, columns)),
        "2 bits": rng.integers(0, 4, (rows, columns)) / 3,
        "sparse": rng.integers(0, 4, (rows, columns)) / 3 * (rng.random((rows, columns)) < 0.3),
    }
    return kinds[kind]


def current_error(got, exact, conductance):
    """Largest error of a column's current over all-ones and random inputs, relative to the largest ideal current."""
    rows = conductance.shape[0]
    inputs = np.concatenate([np.ones((1, rows)), np.random.default_rng(0).random((20, rows)) < 0.5]).astype(np.float64)
    return np.abs(inputs @ (np.asarray(got, np.float64) - exact)).max() / conductance.sum(axis=0).max()


def test_the_nodal_solver_is_kirchhoffs_laws():
    rng = np.random.default_rng(0)
    conductance, voltages = rng.uniform(0, 1, (5, 4)), rng.uniform(-1, 1, 5)
    exact = assembled(conductance, 0.1, voltages)
    np.testing.assert_allclose(voltages @ effective(conductance, 0.1), exact, rtol=0, atol=1e-14)
    # one cell: three resistances in series
    np.testing.assert_allclose(effective(np.array([[1.0]]), 0.5), [[0.5]], rtol=1e-14)


@pytest.mark.parametrize("kind", ["full", "uniform", "2 bits", "sparse"])
@pytest.mark.parametrize(
    ("rows", "columns", "ratio", "bound"),
    [(64, 64, 1e-4, 0.004), (64, 64, 3e-5, 0.001), (32, 32, 1e-4, 0.001), (8, 32, 1e-4, 0.001), (8, 128, 3e-5, 0.01)],
)
def test_within_one_percent_of_the_nodal_solution(rows, columns, ratio, bound, kind):
    conductance = array_of(kind, rows, columns)
    exact = effective(conductance, ratio)
    got = jax.jit(ir_drop)(jnp.asarray(conductance, jnp.float32), ratio)
    assert current_error(got, exact, conductance) < bound
    # doing nothing is far off, and so is the series that the quotient continues
    assert current_error(conductance, exact, conductance) > 10 * current_error(got, exact, conductance)
    if kind == "full":
        first = conductance * (2 - conductance / np.asarray(got, np.float64))
        assert current_error(first, exact, conductance) > 3 * current_error(got, exact, conductance)


@pytest.mark.parametrize(
    ("rows", "columns", "ratio", "stated"), [(64, 64, 1e-4, 0.004), (8, 128, 1e-4, 0.04), (8, 128, 3e-5, 0.007)]
)
def test_the_errors_that_the_docstring_states(rows, columns, ratio, stated):
    conductance = array_of("full", rows, columns)
    exact = effective(conductance, ratio)
    got = np.asarray(ir_drop(jnp.asarray(conductance, jnp.float32), ratio), np.float64)
    assert stated / 1.2 < current_error(got, exact, conductance) <= stated
    if rows == columns:
        assert 0.08 < current_error(conductance * (2 - conductance / got), exact, conductance) < 0.095


def test_exact_to_first_order_also_behind_rows_that_are_off():
    conductance = array_of("uniform", 12, 5)
    below = np.where(np.arange(12)[:, None] < 9, 0.0, conductance)  # nine rows of cells switched off before three
    slope = {}
    for ratio in (1e-3, 1e-4):
        exact = effective(below, ratio)[9:]
        got = ir_drop(jnp.asarray(conductance[9:], jnp.float32), ratio, 9)
        slope[ratio] = np.abs(np.asarray(got, np.float64) - exact).max()
        assert (
            np.abs(np.asarray(ir_drop(jnp.asarray(conductance[9:], jnp.float32), ratio)) - exact).max()
            > 10 * (slope[ratio])
        )
    assert slope[1e-4] < slope[1e-3] / 40  # a hundredth, but for float32


def test_gradient_is_the_finite_difference():
    conductance = array_of("uniform", 6, 5)
    weights = np.random.default_rng(1).normal(size=(6, 5))
    with jax.enable_x64(True):

        def loss(g, ratio):
            return jnp.sum(jnp.asarray(weights) * ir_drop(g, ratio))

        at = (jnp.asarray(conductance), jnp.asarray(0.01))
        to_cells, to_ratio = jax.jit(jax.grad(loss, argnums=(0, 1)))(*at)
        step = 1e-6
        for place in ((0, 0), (3, 2), (5, 4)):
            moved = np.zeros((6, 5))
            moved[place] = step
            slope = (loss(at[0] + moved, at[1]) - loss(at[0] - moved, at[1])) / (2 * step)
            np.testing.assert_allclose(to_cells[place], slope, rtol=1e-6)
        slope = (loss(at[0], at[1] + step) - loss(at[0], at[1] - step)) / (2 * step)
        np.testing.assert_allclose(to_ratio, slope, rtol=1e-6)


def laid_out(conductance, spec, ratio):
    """`fold_wires` with every cell put in its place by hand."""
    polarities, cells, fragments, height, columns = conductance.shape
    held = 128 // (polarities * cells)
    result = np.zeros(conductance.shape)
    drop = jax.jit(ir_drop)
    for fragment in range(fragments):
        before = fragment * height % (128 // height * height)
        for start in range(0, columns, held):
            places = [
                (p, c, n)
                for n in range(start, min(start + held, columns))
                for p in range(polarities)
                for c in range(cells)
            ]
            array = np.stack([conductance[p, c, fragment, :, n] for p, c, n in places], axis=1)
            dropped = np.asarray(drop(jnp.asarray(array, jnp.float32), ratio, before))
            for number, (p, c, n) in enumerate(places):
                result[p, c, fragment, :, n] = dropped[:, number]
    return result


@pytest.mark.parametrize(("fragment", "columns", "on_off_ratio"), [(8, 20, None), (24, 3, 10.0)])
def test_cells_lie_where_they_are_said_to(key, fragment, columns, on_off_ratio):
    spec = CrossbarSpec(fragment=fragment, weight_scale=1.0, on_off_ratio=on_off_ratio)
    levels = np.random.default_rng(2).integers(-127, 128, (140, columns))
    weights = jnp.asarray(levels, jnp.float32)
    chip = program(key, weights, spec)
    wired = fold_wires(chip, spec, 1e-3)
    per_level = 1e-3 / (3 + spec.off_conductance)
    expected = laid_out(np.asarray(chip.conductance), spec, per_level)
    np.testing.assert_allclose(np.asarray(wired.conductance), expected, rtol=1e-5, atol=1e-6)
    again = program(key, weights, CrossbarSpec(**{**vars(spec), "wire_ratio": 1e-3}))
    np.testing.assert_allclose(np.asarray(again.conductance), np.asarray(wired.conductance), rtol=1e-6)


@pytest.mark.parametrize("encoding", ["differential", "offset"])
def test_reads_see_the_drop_exactly(key, encoding):
    # the spec alone would call these reads linear and round them
    spec = CrossbarSpec(weight_scale=1.0, encoding=encoding, adc_bits=6, input_bits=3)
    rng = np.random.default_rng(4)
    levels, codes = draw_levels(rng, 21, 4, spec), draw_codes(rng, 5, 21, spec)
    assert spec.linear
    chip = jax.jit(lambda w: fold_wires(program(key, w, spec), spec, 0.01))(jnp.asarray(levels, jnp.float32))
    _, signs, flips = store(levels, spec)
    expected, tie = read_all(np.asarray(chip.conductance), signs, flips, codes, spec)
    assert tie > 1e-5
    assert not np.array_equal(expected, codes @ levels)
    for path in (None, "table", "direct"):
        limbs = integer_product(chip, jnp.asarray(codes, jnp.int32), spec, path)
        seen = reading_spec(chip, spec)
        assert limb_bits(seen, 21) <= limb_bits(spec, 21)
        np.testing.assert_array_equal(whole(limbs, seen, 21), expected)


def test_vmap_over_chips_ratios_and_gradients(key):
    spec = CrossbarSpec(fragment=4, weight_bits=4, adc_bits=3, input_bits=3, sigma=0.1)
    weights, inputs = jax.random.normal(key, (9, 3)), jax.random.normal(key, (4, 9))

    @jax.jit
    def outputs(key, ratio, weights):
        return read(key, fold_wires(program(key, weights, spec), spec, ratio), inputs, spec)

    keys, ratios = jax.random.split(key, 2), jnp.array([0.0, 0.05])
    together = jax.vmap(outputs, in_axes=(0, 0, None))(keys, ratios, weights)
    apart = [outputs(k, r, weights) for k, r in zip(keys, ratios, strict=True)]
    np.testing.assert_array_equal(together, jnp.stack(apart))
    to_weights = jax.grad(lambda w: outputs(key, 0.05, w).sum())(weights)
    np.testing.assert_allclose(to_weights, np.broadcast_to(np.asarray(inputs).sum(0)[:, None], (9, 3)), rtol=1e-5)
