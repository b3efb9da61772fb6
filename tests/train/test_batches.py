"""Batches: a function of (key, step), a permutation in each epoch, and one that is fairly drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.train import batch_indices, batches, permuted


def epoch_of(key, size, batch, epoch):
    per_epoch = size // batch
    steps = jnp.arange(epoch * per_epoch, (epoch + 1) * per_epoch)
    return np.asarray(jax.jit(jax.vmap(lambda step: batch_indices(key, step, size, batch)))(steps)).ravel()


def sorted_images(seed, size):
    return jnp.sort(permuted(jax.random.key(seed), jnp.arange(size), size))


# of all shapes of `a b >= size`: each is one program
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 30, 31, 157, 400])
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_permuted_is_a_permutation(size, seed):
    images = jax.jit(sorted_images, static_argnums=1)(np.uint32(seed), size)
    assert images.tolist() == list(range(size))


# squares, one more and one less, primes, and the sizes of real splits
@pytest.mark.parametrize("size", [1024, 1025, 60_000, 2_088_627])
def test_large_permutations(size, key):
    images = np.asarray(jax.jit(permuted, static_argnums=2)(key, jnp.arange(size), size))
    assert (np.bincount(images, minlength=size) == 1).all()
    # a random permutation's rank correlation with the identity has standard deviation 1 / sqrt(size)
    correlation = np.corrcoef(np.arange(size), images)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(size)


@pytest.mark.parametrize(("size", "batch"), [(1297, 64), (60, 60), (61, 10), (7, 1), (100, 99)])
def test_each_epoch_visits_each_example_at_most_once(size, batch, key):
    seen = [epoch_of(key, size, batch, epoch) for epoch in range(3)]
    for indices in seen:
        assert len(indices) == size // batch * batch
        assert len(set(indices.tolist())) == len(indices)
        assert indices.min() >= 0
        assert indices.max() < size
    if size > 7:
        assert (seen[0] != seen[1]).any()
        assert (seen[1] != seen[2]).any()


def test_a_function_of_key_and_step(key):
    once = batch_indices(key, 41, 1297, 64)
    np.testing.assert_array_equal(once, batch_indices(key, jnp.int32(41), 1297, 64))
    np.testing.assert_array_equal(once, jax.jit(lambda step: batch_indices(key, step, 1297, 64))(41))
    _, scanned = jax.lax.scan(lambda _, step: (None, batch_indices(key, step, 1297, 64)), None, jnp.arange(50))
    np.testing.assert_array_equal(once, scanned[41])
    assert (once != batch_indices(jax.random.fold_in(key, 1), 41, 1297, 64)).any()


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum(), counts.size - 1


def test_positions_are_uniform_and_the_test_would_see_if_not():
    """Where element 0, and the pair (0, 1), land over many keys; a shuffle of too few rounds must fail."""
    size, draws = 12, 20_000
    keys = jax.random.split(jax.random.key(5), draws)
    images = np.asarray(jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(size), size)))(keys))

    def pair_statistic(images):
        pairs = np.bincount(images[:, 0] * size + images[:, 1], minlength=size * size).reshape(size, size)
        return chi_square(pairs[~np.eye(size, dtype=bool)])

    for position in range(size):
        statistic, freedom = chi_square(np.bincount(images[:, position], minlength=size))
        assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)
    statistic, freedom = pair_statistic(images)
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)
    # random rotations are uniform position by position, and must fail on pairs
    shift = np.random.default_rng(0).integers(0, size, (draws, 1))
    statistic, freedom = pair_statistic((np.arange(size)[None, :] + shift) % size)
    assert statistic > 100 * freedom


def test_neighboring_epochs_share_no_more_than_chance(key):
    first, second = (epoch_of(key, 5000, 50, epoch) for epoch in (0, 1))
    # matches of two random permutations: Poisson with mean 1
    assert (first == second).sum() < 8


def test_batches_gather_from_every_array(key):
    inputs, labels = np.arange(20.0).reshape(20, 1) * [[1.0, 10.0]], np.arange(20)
    at = batches((inputs, labels), key, 6)
    x, y = jax.jit(at)(4)
    np.testing.assert_array_equal(y, batch_indices(key, 4, 20, 6))
    np.testing.assert_array_equal(x, inputs[np.asarray(y)])
    # a pytree: the data are an argument of what is compiled
    x_again, _ = jax.jit(lambda fn, step: fn(step))(at, 4)
    np.testing.assert_array_equal(x, x_again)
    assert len(jax.tree.leaves(at)) == 3


def test_bad_arguments(key):
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1 and at most 10, got 11"):
        batch_indices(key, 0, 10, 11)
    with pytest.raises(ValueError, match="batch must be a whole number"):
        batches(np.zeros(10), key, 0)
    with pytest.raises(ValueError, match=r"arrays of one length, got lengths \[3, 4\]"):
        batches((np.zeros(3), np.zeros(4)), key, 1)
    with pytest.raises(ValueError, match="size must be"):
        permuted(key, jnp.arange(3), 0)
