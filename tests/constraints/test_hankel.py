"""Block-Hankel layers: the projection is least squares; what every constraint must do stands in tests/contracts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import Hankel, hankel_numbers, hankel_product, hankel_ratio, hankel_weight
from modicum.core import Constraint


@pytest.mark.parametrize(("shape", "block"), [((4, 4), 4), ((8, 6), 3), ((5, 7), 3), ((2, 9), 4)])
def test_projection_is_least_squares(shape, block):
    w = np.asarray(jax.random.normal(jax.random.key(0), shape), np.float64)
    columns = {}
    for i in range(shape[0]):
        for j in range(shape[1]):
            diagonal = (i // block, j // block, i % block + j % block)
            columns.setdefault(diagonal, np.zeros(shape))[i, j] = 1
    basis = np.stack([column.ravel() for column in columns.values()], axis=1)
    best = basis @ np.linalg.lstsq(basis, w.ravel(), rcond=None)[0]
    constraint = Hankel(block)
    assert isinstance(constraint, Constraint)
    p = constraint.project(jnp.asarray(w, jnp.float32))
    np.testing.assert_allclose(p, best.reshape(shape), atol=1e-6)
    np.testing.assert_array_equal(constraint.project(p), p)


def test_numbers_and_weight_are_inverse():
    numbers = jax.random.normal(jax.random.key(1), (2, 3, 7))
    w = hankel_weight(numbers, (8, 12))
    assert float(w[1, 2]) == float(numbers[0, 0, 3])
    assert float(w[5, 11]) == float(numbers[1, 2, 4])
    np.testing.assert_array_equal(hankel_numbers(w, 4), numbers)


def test_product_and_its_gradient():
    numbers = jax.random.normal(jax.random.key(2), (2, 2, 5))
    x = jax.random.normal(jax.random.key(3), (6,))
    w = hankel_weight(numbers, (6, 5))
    np.testing.assert_allclose(hankel_product(numbers, x, 5), np.asarray(x) @ np.asarray(w), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda v: jnp.sum(hankel_product(v, x, 5)))(numbers)
    expected = jax.grad(lambda v: jnp.sum(x.reshape(6, 1) * hankel_weight(v, (6, 5))))(numbers)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_sizes():
    assert hankel_ratio((512, 512), 32) == pytest.approx(32**2 / 63)
    packed = Hankel(16).encode(jnp.ones((64, 64)))
    assert packed.nbytes.total == 4 * 16 * 31


def test_bad_input():
    with pytest.raises(ValueError, match="block must be a whole number of at least 2, got 1"):
        Hankel(1)
    with pytest.raises(ValueError, match=r"w must be dense \(in, out\) to be cut into Hankel blocks, got shape \(3,\)"):
        Hankel(2).project(jnp.ones(3))
    with pytest.raises(ValueError, match=r"numbers must have shape \(1, 2, 3\), got \(1, 1, 3\)"):
        hankel_weight(jnp.ones((1, 1, 3)), (2, 4))
