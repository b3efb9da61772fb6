"""`TopK` and `Kernels`: exact counts under ties, traced counts, which kernels, bad counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import MEST_8, Channels, Kernels, Levels, NofM, Patterns, TopK, nest


def kernel_counts(w):
    return (np.abs(np.asarray(w)).sum(axis=(0, 1)) > 0).sum(axis=0)


def test_counts_are_exact_where_all_are_equal():
    """A percentile threshold keeps none of them (strict) or all (not strict)."""
    w = jnp.full((50, 50), -0.3)
    threshold = np.percentile(np.abs(w), 33)
    assert (np.abs(w) > threshold).sum() == 0
    assert (np.abs(w) >= threshold).sum() == 2500
    kept = np.flatnonzero(TopK(1680).project(w))
    np.testing.assert_array_equal(kept, np.arange(1680))
    conv = jnp.ones((3, 3, 6, 4))
    np.testing.assert_array_equal(kernel_counts(Kernels(2).project(conv)), [2, 2, 2, 2])
    assert kernel_counts(Kernels(7, balanced=False).project(conv)).tolist() == [6, 1, 0, 0]


def test_a_count_may_be_traced_and_mapped(key):
    w = jax.random.normal(key, (3, 3, 6, 5)).round()
    rates = jnp.array([1, 4, 6])
    for make in (TopK, lambda k: Kernels(k, balanced=False), lambda k: Kernels(k, group=2)):
        mapped = jax.jit(jax.vmap(lambda k, make=make: make(k).project(w)))(rates)
        as_pytree = jax.vmap(lambda c: c.project(w))(make(rates))
        for at, k in enumerate((1, 4, 6)):
            np.testing.assert_array_equal(mapped[at], make(k).project(w))
            np.testing.assert_array_equal(as_pytree[at], mapped[at])
    assert TopK(rates).exact


def test_kernels_of_largest_norm_per_filter(key):
    w = jax.random.normal(key, (3, 3, 8, 5))
    energy = np.square(np.asarray(w, np.float64)).sum(axis=(0, 1))
    p = np.asarray(Kernels(3).project(w))
    for o in range(5):
        best = np.sort(np.argsort(-energy[:, o])[:3])
        np.testing.assert_array_equal(np.flatnonzero(np.abs(p[..., o]).sum(axis=(0, 1))), best)
        np.testing.assert_array_equal(p[..., best, o], w[..., best, o])


def test_a_group_keeps_the_same_channels_by_their_common_energy(key):
    w = jax.random.normal(key, (3, 3, 8, 5))
    p = np.abs(np.asarray(Kernels(3, group=2).project(w))).sum(axis=(0, 1)) > 0
    energy = np.square(np.asarray(w, np.float64)).sum(axis=(0, 1))
    for at in (0, 2, 4):
        best = np.sort(np.argsort(-energy[:, at : at + 2].sum(axis=1))[:3])
        for o in range(at, min(at + 2, 5)):
            np.testing.assert_array_equal(np.flatnonzero(p[:, o]), best)


def test_groups_lie_along_the_axis_that_a_product_sums(key):
    """Indexed by hand: 2 of every 4 consecutive input channels at one tap of one filter; the last group has 2."""
    w = np.asarray(jax.random.normal(key, (3, 1, 6, 5)))
    expected = np.zeros_like(w)
    for y, o, start in itertools.product(range(3), range(5), (0, 4)):
        group = w[y, 0, start : start + 4, o]
        kept = start + np.argsort(-np.abs(group), kind="stable")[:2]
        expected[y, 0, kept, o] = w[y, 0, kept, o]
    np.testing.assert_array_equal(NofM(2, 4).project(jnp.asarray(w)), expected)
    dense = jnp.asarray(w[0, 0])
    np.testing.assert_array_equal(NofM(2, 4).project(dense), expected[0, 0])
    np.testing.assert_array_equal(NofM(2, 4, axis=1).project(dense.T), expected[0, 0].T)
    ties = NofM(2, 4).project(jnp.ones((6, 1)))
    np.testing.assert_array_equal(ties.ravel(), [1, 1, 0, 0, 1, 1])


def test_channels_are_whole_slices_of_largest_energy(key):
    w = jax.random.normal(key, (3, 3, 8, 5))
    for axis, name in ((-1, "ijkl->l"), (-2, "ijkl->k")):
        energy = np.einsum(name, np.square(np.asarray(w, np.float64)))
        best = np.sort(np.argsort(-energy)[:3])
        p = np.moveaxis(np.asarray(Channels(3, axis).project(w)), axis, 0)
        np.testing.assert_array_equal(np.flatnonzero(np.abs(p).sum(axis=(1, 2, 3))), best)
        np.testing.assert_array_equal(p[best], np.moveaxis(np.asarray(w), axis, 0)[best])


@pytest.mark.parametrize(
    ("make", "k", "most"),
    [
        (lambda k: TopK(k), 7, 216),
        (lambda k: Kernels(k, group=2), 2, 6),
        (lambda k: Kernels(k, balanced=False), 2, 24),
        (lambda k: NofM(k, 4), 2, 4),
        (lambda k: Channels(k), 1, 4),
        (lambda k: Channels(k, axis=-2), 1, 6),
        (lambda k: nest(Kernels(k), Patterns(MEST_8), Levels(4, 0.2)), 2, 6),
    ],
)
def test_counts_relax_from_all_to_k(make, k, most, key):
    w = jax.random.normal(key, (3, 3, 6, 4))
    shares = jnp.array([0.0, 0.3, 0.5, 1.0])
    points = jax.jit(jax.vmap(lambda share: make(k).relaxed(w.shape, share).project(w)))(shares)
    for share, point in zip((0.0, 0.3, 0.5, 1.0), points, strict=True):
        count = k + round(np.float64(most - k) * share)
        np.testing.assert_array_equal(point, make(count).project(w))
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(make(k).relaxed(w.shape, 0.5)) if leaf != 0.2)


def test_relaxing_leaves_other_sets_alone_and_refuses_other_shares():
    assert Levels(4).relaxed((3, 3), 0.5) == Levels(4)
    assert Patterns(MEST_8).relaxed((3, 3, 2, 2), 0.5) == Patterns(MEST_8)
    big = TopK(10).relaxed((25088, 40960), 1.0)
    assert big.k == 25088 * 40960, "float32 rounding must not lead past the number there is"
    with pytest.raises(ValueError, match=r"share must lie from 0 to 1, got 1\.5"):
        TopK(2).relaxed((3, 3), 1.5)
    with pytest.raises(ValueError, match="k must be from 1 to the 9 elements"):
        TopK(20).relaxed((3, 3), 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "k must be a whole number of at least 1, got 0"),
        (lambda: TopK(2.5), "k must be a whole number"),
        (lambda: TopK("3"), "k must be a whole number"),
        (lambda: Kernels(True), "k must be a whole number"),
        (lambda: Kernels(2, group=0), "group must be a whole number of at least 1"),
        (lambda: Kernels(2, balanced=False, group=2), "group must be 1 where kernels are counted over the layer"),
        (lambda: TopK(13).project(jnp.ones((3, 4))), r"k must be from 1 to the 12 elements of w .*, got 13"),
        (lambda: Kernels(4).project(jnp.ones((3, 4))), r"k must be from 1 to the 3 kernels of a filter .*, got 4"),
        (lambda: Kernels(13, balanced=False).fit(jnp.ones((3, 4))), r"k must be from 1 to the 12 kernels of w"),
        (lambda: Kernels(jnp.array(9)).project(jnp.ones((3, 4))), "k must be from 1 to the 3"),
        (lambda: TopK(jnp.array([1, 2])).project(jnp.ones(3)), "k must be one number .*shape \\(2,\\)"),
        (lambda: NofM(5, 4), "n must be a whole number of at least 1 and at most 4, got 5"),
        (lambda: NofM(2, 0), "m must be a whole number of at least 1, got 0"),
        (lambda: NofM(jnp.array(5), 4).project(jnp.ones((8, 2))), "n must be from 1 to m = 4, got 5"),
        (lambda: NofM(2, 4).project(jnp.ones(8)), r"axis must lie from -1 to 0 for w of shape \(8,\), got -2"),
        (lambda: Channels(0), "k must be a whole number of at least 1"),
        (lambda: Channels(2, axis=0), "axis must be one of -1, -2, got 0"),
        (lambda: Channels(5).project(jnp.ones((3, 4))), "k must be from 1 to the 4 filters of w .*, got 5"),
        (lambda: Channels(4, axis=-2).project(jnp.ones((3, 4))), "k must be from 1 to the 3 input channels of w"),
        (lambda: Channels(1).project(jnp.ones((3, 3, 4))), "w must have 2 axes .* or 4"),
        (lambda: jax.vmap(lambda k: Channels(k).encode(jnp.ones((3, 4))))(jnp.arange(1, 3)), "k must be a concrete"),
        (lambda: Kernels(1).project(jnp.ones((3, 3, 4))), "w must have 2 axes .* or 4"),
        (lambda: Kernels(1).gain(jnp.ones(4)), "w must have 2 axes .* or 4"),
        (lambda: jax.vmap(lambda k: TopK(k).encode(jnp.ones(3)))(jnp.arange(1, 3)), "k must be a concrete number"),
        (lambda: jax.jit(lambda c, w: c.encode(w))(nest(TopK(2)), jnp.ones(3)), "k must be a concrete number"),
    ],
)
def test_bad_counts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_count_in_an_array_encodes_where_it_is_known(key):
    w = jax.random.normal(key, (6, 4))
    for k in (np.int64(3), jnp.array(3)):
        packed = Kernels(k).encode(w)
        assert packed.nbytes == Kernels(3).encode(w).nbytes
        np.testing.assert_array_equal(Kernels(k).decode(packed), Kernels(3).project(w))
