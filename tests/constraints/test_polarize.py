"""`Polarized`: where fragments lie in an HWIO kernel, which sign they keep, short last ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import Polarized


def test_fragments_run_down_a_column_kernel_by_kernel(key):
    """Row `i * kh * kw + y * kw + x` of column `o`, cut every 5 rows, indexed by hand."""
    kh, kw, inputs, outputs, fragment = 2, 3, 3, 4, 5
    w = np.asarray(jax.random.normal(key, (kh, kw, inputs, outputs)))
    expected = np.zeros_like(w)
    for o in range(outputs):
        rows = [(y, x, i) for i in range(inputs) for y in range(kh) for x in range(kw)]
        for start in range(0, len(rows), fragment):
            members = rows[start : start + fragment]
            values = np.array([w[y, x, i, o] for y, x, i in members], np.float64)
            sign = 1 if np.sum(values[values > 0] ** 2) >= np.sum(values[values < 0] ** 2) else -1
            for y, x, i in members:
                expected[y, x, i, o] = w[y, x, i, o] if w[y, x, i, o] * sign > 0 else 0
    np.testing.assert_array_equal(Polarized(fragment).project(jnp.asarray(w)), expected)


def test_the_sign_of_the_sum_is_not_the_nearest():
    w = jnp.array([[3.0], [-1.5], [-1.0], [-1.0]])
    assert float(w.sum()) < 0
    np.testing.assert_array_equal(Polarized(4).project(w).ravel(), [3, 0, 0, 0])


def test_energy_lost_by_gaussian_weights(key):
    """Prototype: 18 / 26 / 33 / 38 % of the energy for fragments of 4 / 8 / 16 / 32."""
    w = jax.random.normal(key, (512, 200))
    lost = [float(Polarized(m).violation(w)) ** 2 for m in (4, 8, 16, 32)]
    np.testing.assert_allclose(lost, [0.18, 0.26, 0.33, 0.38], atol=0.01)


def test_ties_are_positive_and_lengths_beyond_the_column_are_whole():
    w = jnp.array([[1.0], [-1.0]])
    np.testing.assert_array_equal(Polarized(2).project(w), [[1.0], [0.0]])
    np.testing.assert_array_equal(Polarized(2**40).project(w), [[1.0], [0.0]])


@pytest.mark.parametrize("fragment", [0, -3, 2.0, None])
def test_bad_fragments(fragment):
    with pytest.raises((ValueError, TypeError), match="fragment"):
        Polarized(fragment)
