"""`Patterns`: the named libraries, the natural library, sharing by groups, small weights, bad libraries."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import (
    MEST_8,
    PCONV_4,
    Kernels,
    NaturalPatterns,
    Patterns,
    natural_library,
    nest,
    pattern_space,
)


def test_named_libraries():
    """MEST numbers its patterns by their place among all C(9, 5) = 126 prunings, PCONV removes an arm of the cross."""
    prunings = list(itertools.combinations(range(9), 5))
    assert len(prunings) == 126
    numbers = [1 + prunings.index(tuple(at for at in range(9) if at not in pattern)) for pattern in MEST_8]
    assert numbers == [3, 12, 65, 120, 1, 14, 44, 53]
    cross = {1, 3, 4, 5, 7}
    assert len(set(PCONV_4)) == 4
    assert {tuple(cross - set(pattern)) for pattern in PCONV_4} == {(1,), (3,), (5,), (7,)}


def natural(kernel, size):
    """By hand: the center and the largest others, one kernel at a time."""
    center = kernel.shape[0] // 2 * kernel.shape[1] + kernel.shape[1] // 2
    flat = np.abs(kernel).ravel()
    others = sorted((at for at in range(flat.size) if at != center), key=lambda at: (-flat[at], at))
    return tuple(sorted([center, *others[: size - 1]]))


@pytest.mark.parametrize(("window", "size"), [((3, 3), 4), ((3, 3), 5), ((1, 3), 2), ((2, 2), 3), ((5, 5), 4)])
def test_natural_library_counts(window, size, key):
    w = jax.random.normal(key, (*window, 20, 30)).round(1)
    kernels = np.asarray(w).reshape(*window, -1)
    counts = Counter(natural(kernels[..., at], size) for at in range(kernels.shape[-1]))
    library = natural_library(w, 3 if window == (2, 2) else 2, size)
    frequencies = sorted(counts.values(), reverse=True)
    assert [counts[pattern] for pattern in library] == frequencies[: len(library)]
    assert hash(library) == hash(Patterns(library).library)


def test_natural_library_of_several_layers_and_of_few_kernels():
    first = jnp.zeros((3, 3, 1, 2)).at[0, 0].set(1.0).at[0, 1].set(1.0).at[0, 2].set(1.0)
    second = jnp.zeros((3, 3, 1, 1)).at[2].set(1.0)
    library = natural_library([first, second], 4)
    assert library[:2] == ((0, 1, 2, 4), (4, 6, 7, 8))
    assert library[2:] == ((0, 1, 3, 4), (0, 1, 4, 5)), "unseen patterns fill up in order"
    assert len(set(natural_library(first, 56))) == 56


def as_library(table):
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in np.asarray(table))


def by_frequency(w, size):
    """Natural patterns of the kernels that are not all zero, most frequent first; by hand."""
    kernels = np.asarray(w).reshape(*w.shape[:2], -1)
    counts = Counter(natural(kernels[..., at], size) for at in range(kernels.shape[-1]) if kernels[..., at].any())
    return sorted(counts, key=lambda pattern: (-counts[pattern], pattern))


@pytest.mark.parametrize(("window", "size"), [((3, 3), 4), ((2, 5), 2)])
def test_fitted_inside_a_compiled_program_it_is_the_natural_library(window, size, key):
    """One program for all seeds and steps: a scan of a vmap, over weights full of ties, zeros and pruned kernels."""
    shape = (2, 24, *window, 5, 6)
    kinds = jnp.expand_dims(jnp.arange(24) % 4, (0, 2, 3, 4, 5))
    w = jax.random.normal(key, shape)
    w = jnp.where(kinds == 0, w, jnp.where(kinds == 1, w.round(), jnp.where(kinds == 2, w.round(1), jnp.sign(w) * 0.5)))
    w = w * jax.random.bernoulli(key, 0.6, (2, 24, 1, 1, 5, 6))
    fit = jax.vmap(lambda w: NaturalPatterns(6, size).fit(w).table)
    _, tables = jax.jit(lambda w: jax.lax.scan(lambda _, w: (None, fit(w)), None, w))(w)
    full = 0
    for step, seed in itertools.product(range(2), range(24)):
        library, expected = as_library(tables[step, seed]), by_frequency(w[step, seed], size)
        assert list(library[: len(expected)]) == expected[:6]
        assert set(library[len(expected) :]) <= {expected[0]}, "the most frequent one fills up"
        if len(expected) >= 6:
            full += 1
            assert library == natural_library(w[step, seed], 6, size)
    assert 8 < full < 48


def test_pruned_kernels_do_not_vote(key):
    w = jax.random.normal(key, (3, 3, 12, 8))
    pruned = Kernels(2).project(w)
    votes = Counter(natural(np.asarray(w)[..., i, o], 4) for i, o in np.argwhere(np.asarray(pruned).any(axis=(0, 1))))
    assert votes[(0, 1, 2, 4)] < 3, "a zero kernel would vote for the first four"
    library = as_library(NaturalPatterns(5).fit(pruned).table)
    assert [votes[pattern] for pattern in library] == sorted(votes.values(), reverse=True)[:5]
    assert library == natural_library(pruned, 5)
    assert as_library(NaturalPatterns(2).fit(jnp.zeros((3, 3, 2, 2))).table) == ((0, 1, 2, 4),) * 2


def test_a_library_read_off_serves_as_one_given(key):
    w = jax.random.normal(key, (3, 3, 9, 8))
    free = NaturalPatterns(8)
    fitted = free.fit(w)
    assert fitted.exact
    assert not free.exact
    assert fitted.fit(-w[::-1]) == fitted
    assert fitted != free
    assert fitted != free.fit(w[::-1])
    given = Patterns(natural_library(w, 8))
    for same in (free, fitted, nest(fitted, Kernels(9)), nest(free, Kernels(9)).fit(w)):
        np.testing.assert_array_equal(same.project(w), given.project(w))
    packed = fitted.encode(w)
    assert packed.nbytes == given.encode(w).nbytes
    np.testing.assert_array_equal(given.decode(packed), given.project(w))
    both = nest(free, Kernels(3))
    np.testing.assert_array_equal(both.project(w), nest(given, Kernels(3)).project(w))


def test_pattern_space():
    space = pattern_space()
    assert len(space) == 56
    assert list(space) == sorted(space)
    assert all(len(set(pattern)) == 4 and 4 in pattern for pattern in space)
    assert pattern_space((1, 3), 2) == ((0, 1), (1, 2))


def test_pattern_of_largest_retained_energy(key):
    w = jax.random.normal(key, (3, 3, 7, 5))
    p = np.asarray(Patterns(MEST_8).project(w))
    for i, o in itertools.product(range(7), range(5)):
        kernel = np.asarray(w, np.float64)[..., i, o].ravel()
        best = max(MEST_8, key=lambda pattern: sum(kernel[at] ** 2 for at in pattern))
        np.testing.assert_array_equal(np.flatnonzero(p[..., i, o]), best)


def test_a_group_shares_the_pattern_of_an_input_channel(key):
    w = jax.random.normal(key, (3, 3, 4, 10))
    p = np.asarray(Patterns(MEST_8, group=4).project(w)) != 0
    p = p.reshape(9, 4, 10)
    for at in (0, 4, 8):
        shared = p[:, :, at : at + 4]
        np.testing.assert_array_equal(shared, np.broadcast_to(shared[:, :, :1], shared.shape))
    assert Patterns(MEST_8).gain(w) > Patterns(MEST_8, group=4).gain(w) > Patterns(MEST_8, group=10).gain(w)


def test_a_small_weight_does_not_drown_in_the_energy_of_large_ones():
    """In float32 sums of kept energy, 1 + 1e-10 equals 1: the first pattern would win, and the 1e-5 would be lost."""
    w = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0).at[2, 2].set(1e-5)
    library = ((0, 1, 3, 4), (4, 5, 7, 8))
    assert np.float32(1) + np.float32(1e-5) ** 2 == np.float32(1)
    np.testing.assert_array_equal(Patterns(library).project(w), w)
    assert float(jax.jit(Patterns(library).violation)(w)) == 0


@pytest.mark.parametrize(
    "library", [(), ((),), ((0, 0),), ((-1, 2),), ((0, 1), (1, 0)), ((0.5,),), 3, ((True,),), (3,)]
)
def test_bad_libraries(library):
    with pytest.raises((ValueError, TypeError), match="library"):
        Patterns(library)


def on_natural(k, size=4, shape=(3, 3, 2, 2), **others):
    return lambda: NaturalPatterns(k, size, **others).project(jnp.ones(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patterns(PCONV_4).project(jnp.ones((9, 4))), "w must be a convolution kernel"),
        (lambda: Patterns(PCONV_4).project(jnp.ones((1, 1, 4, 4))), "library must hold positions below the 1 of a 1x1"),
        (lambda: Patterns(PCONV_4, group=0), "group must be a whole number of at least 1"),
        (lambda: natural_library(jnp.ones((3, 3, 2, 2)), 57), "k must be a whole number of at least 1 and at most 56"),
        (lambda: natural_library(jnp.ones((3, 3, 2, 2)), 8, size=10), "size must be"),
        (lambda: natural_library([jnp.ones((3, 3, 2, 2)), jnp.ones((5, 5, 2, 2))], 8), "window must have shape"),
        (lambda: natural_library(jnp.full((3, 3, 2, 2), jnp.nan), 8), "w must be finite"),
        (lambda: natural_library([jnp.ones((9, 2))], 8), "w must have 4 axes"),
        (lambda: NaturalPatterns(0), "k must be a whole number of at least 1, got 0"),
        (lambda: NaturalPatterns(8, 0), "size must be a whole number of at least 1, got 0"),
        (on_natural(57), "k must be at most the 56 patterns of 4 positions in a 3x3 kernel, got 57"),
        (on_natural(8, 10), "size must be at most the 9 positions of a 3x3 kernel, got 10"),
        (on_natural(8, shape=(9, 4)), "w must be a convolution kernel"),
        (on_natural(8, shape=(6, 6, 1, 2)), "w must have a window of at most 30 positions .* got a 6x6"),
        (on_natural(2, table=np.ones((3, 9), bool)), r"table must have shape \(2, 9\) for a 3x3 kernel, got \(3, 9\)"),
        (on_natural(2, table=np.ones((2, 9), bool)), "table must mark 4 positions in each row, got"),
        (lambda: NaturalPatterns(8).fit(jnp.full((3, 3, 2, 2), jnp.nan)), "w must be finite"),
        (lambda: pattern_space((3, 3), 10), "size must be"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
