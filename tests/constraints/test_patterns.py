"""`Patterns`: the named libraries, the natural library, sharing by groups, small weights, bad libraries."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import MEST_8, PCONV_4, Patterns, natural_library


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
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
