"""Every projection against enumeration, on over a thousand small weights each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.constraints import Channels, Kernels, Levels, NaturalPatterns, NofM, Patterns, Polarized, TopK, nest
from tests.constraints import reference

COUNT = 1200
PAIRS = ((0, 1), (1, 2), (0, 2))
UNEVEN = ((0,), (1, 3), (0, 2, 3))

# As `fit` leaves it, read off four kernels.
NATURAL = NaturalPatterns(2, size=2).fit(jnp.array([[2.0, 1, 0], [3, 1, 0], [0, 1, 2], [1, 1, 9]]).T[None, :, :, None])
POWERS, SLICES = Levels(4, 0.04, "powers"), Levels(6, 0.12, "slices")

# Windows are small so that all 3^n sign vectors can be listed; (1, 2, 4, 1) is four kernels of two elements.
CASES = {
    "topk": (TopK(3), (7,)),
    "kernels": (Kernels(2), (1, 2, 3, 1)),
    "kernels-two-filters": (Kernels(1), (1, 2, 2, 2)),
    "kernels-dense": (Kernels(2), (4, 2)),
    "kernels-layer": (Kernels(3, balanced=False), (1, 2, 2, 2)),
    "kernels-group-short-last": (Kernels(2, group=2), (1, 1, 3, 3)),
    "patterns": (Patterns(PAIRS), (1, 3, 3, 1)),
    "patterns-uneven": (Patterns(UNEVEN), (2, 2, 2, 1)),
    "patterns-group-short-last": (Patterns(PAIRS, group=2), (3, 1, 1, 3)),
    "polarized": (Polarized(4), (8, 1)),
    "polarized-short-last": (Polarized(3), (4, 2)),
    "polarized-cuts-kernels": (Polarized(3), (2, 2, 2, 1)),
    "polarized-whole-column": (Polarized(100), (1, 2, 2, 2)),
    "levels-3": (Levels(3, 0.4), (1, 2, 3, 1)),
    "topk+levels": (nest(TopK(3), Levels(3, 0.6)), (7,)),
    "kernels+levels": (nest(Kernels(1), Levels(3, 0.6)), (1, 3, 3, 1)),
    "kernels+patterns": (nest(Kernels(2), Patterns(PAIRS)), (1, 3, 3, 1)),
    "kernels-layer+patterns": (nest(Kernels(2, balanced=False), Patterns(((0,), (1,)))), (1, 2, 2, 2)),
    "patterns+levels": (nest(Patterns(UNEVEN), Levels(3, 0.5)), (2, 2, 2, 1)),
    "polarized+levels": (nest(Polarized(3), Levels(3, 0.5)), (8, 1)),
    "patterns+polarized-same": (nest(Patterns(PAIRS), Polarized(3)), (1, 3, 3, 1)),
    "patterns+polarized-inside": (nest(Patterns(UNEVEN), Polarized(2)), (2, 2, 2, 1)),
    "patterns+polarized-spanning": (nest(Patterns(PAIRS), Polarized(6)), (1, 3, 3, 1)),
    "patterns-group+polarized": (nest(Patterns(((0,), (1,)), group=2), Polarized(2)), (1, 2, 2, 2)),
    "patterns-group+polarized-inside": (nest(Patterns(UNEVEN, group=2), Polarized(2)), (2, 2, 1, 2)),
    "kernels+polarized-inside": (nest(Kernels(1), Polarized(2)), (2, 2, 2, 1)),
    "kernels-layer+polarized": (nest(Kernels(2, balanced=False), Polarized(2)), (1, 2, 2, 2)),
    "kernels+polarized-dense": (nest(Kernels(3), Polarized(4)), (8, 1)),
    "kernels+polarized-dense-all": (nest(Kernels(4), Polarized(3)), (8, 1)),
    "kernels+polarized-dense-column": (nest(Kernels(3), Polarized(8)), (8, 1)),
    "kernels+polarized+levels-dense": (nest(Kernels(4), Polarized(4), Levels(3, 0.5)), (8, 1)),
    "kernels+polarized-spanning": (nest(Kernels(2), Polarized(4)), (1, 2, 4, 1)),
    "kernels+polarized-spanning-short": (nest(Kernels(2), Polarized(6)), (1, 2, 4, 1)),
    "kernels+patterns+polarized-spanning": (nest(Kernels(2), Patterns(PAIRS), Polarized(6)), (3, 1, 3, 1)),
    "kernels-group+patterns-group": (nest(Kernels(1, group=2), Patterns(((0,), (1,)), group=2)), (1, 2, 2, 2)),
    "kernels-group+patterns": (nest(Kernels(1, group=2), Patterns(((0,), (1,)))), (1, 2, 2, 2)),
    "kernels-group+patterns-group+polarized": (
        nest(Kernels(1, group=2), Patterns(((0,), (1,)), group=2), Polarized(2), Levels(3, 0.5)),
        (1, 2, 2, 2),
    ),
    "natural": (NATURAL, (1, 3, 3, 1)),
    "natural+polarized+levels": (nest(NATURAL, Polarized(3), Levels(3, 0.5)), (1, 3, 3, 1)),
    "kernels+natural+polarized": (nest(Kernels(2), NATURAL, Polarized(6)), (1, 3, 3, 1)),
    "powers": (POWERS, (7,)),
    "slices": (SLICES, (7,)),
    "slices-two-of-three": (Levels(7, 0.06, "slices", cell_bits=2, slices=2), (7,)),
    "topk+powers": (nest(TopK(3), POWERS), (7,)),
    "kernels+polarized+powers": (nest(Kernels(2), Polarized(4), POWERS), (1, 2, 4, 1)),
    "patterns+polarized+slices": (nest(Patterns(PAIRS), Polarized(3), SLICES), (1, 3, 3, 1)),
    "nofm": (NofM(1, 3), (4, 2)),
    "nofm-short-last": (NofM(2, 3), (7, 1)),
    "nofm-keeps-the-short-group": (NofM(2, 3), (4, 2)),
    "nofm-conv": (NofM(1, 2), (1, 2, 3, 1)),
    "nofm-other-axis": (NofM(1, 2, axis=2), (2, 1, 4)),
    "nofm+levels": (nest(NofM(2, 4), Levels(3, 0.5)), (8, 1)),
    "nofm+powers": (nest(NofM(1, 2), POWERS), (3, 2)),
    "nofm+polarized": (nest(NofM(2, 4), Polarized(4)), (7, 1)),
    "nofm+polarized-longer": (nest(NofM(3, 5), Polarized(5)), (2, 4)),
    "nofm+polarized+levels": (nest(NofM(2, 3), Polarized(3), Levels(3, 0.5)), (4, 2)),
    "channels": (Channels(2), (2, 4)),
    "channels-conv": (Channels(1), (1, 2, 2, 2)),
    "channels-of-inputs": (Channels(2, axis=-2), (4, 2)),
    "channels-of-inputs-conv": (Channels(1, axis=-2), (1, 2, 2, 2)),
    "channels+levels": (nest(Channels(2), Levels(3, 0.6)), (2, 4)),
    "channels+kernels": (nest(Channels(1), Kernels(1)), (1, 2, 2, 2)),
    "channels+kernels-dense": (nest(Channels(2), Kernels(1)), (2, 4)),
    "channels+patterns": (nest(Channels(1), Patterns(UNEVEN)), (2, 2, 1, 2)),
    "channels+natural": (nest(Channels(1), NATURAL), (1, 3, 1, 2)),
    "channels+polarized": (nest(Channels(2), Polarized(2)), (2, 4)),
    "channels+polarized-spanning": (nest(Channels(1), Kernels(1), Polarized(4)), (1, 2, 2, 2)),
    "channels+all": (nest(Channels(1), Kernels(1), Patterns(((0,), (1,))), Polarized(2), SLICES), (1, 2, 2, 2)),
    "channels-of-inputs+patterns": (nest(Channels(1, axis=-2), Patterns(((0,), (1,)))), (1, 2, 2, 2)),
    "channels-of-inputs+patterns-group": (nest(Channels(1, axis=-2), Patterns(((0,), (1,)), group=2)), (1, 2, 2, 2)),
    "channels-of-inputs+natural": (nest(Channels(1, axis=-2), NATURAL), (1, 3, 2, 1)),
    "channels-of-inputs+levels": (nest(Channels(1, axis=-2), Levels(3, 0.6)), (3, 2)),
    "channels-of-inputs+polarized": (nest(Channels(1, axis=-2), Polarized(2), POWERS), (1, 2, 2, 2)),
    "all-four": (nest(Kernels(2), Patterns(PAIRS), Polarized(3), Levels(3, 0.5)), (1, 3, 3, 1)),
    "all-four-spanning": (nest(Kernels(2), Patterns(PAIRS), Polarized(6), Levels(3, 0.5)), (1, 3, 3, 1)),
}


def energy(w):
    return (w.astype(np.float64) ** 2).reshape(len(w), -1).sum(axis=1)


@pytest.mark.parametrize("name", CASES)
def test_projection_is_the_nearest_point(name):
    constraint, shape = CASES[name]
    w = reference.instances(np.random.default_rng(len(name)), shape, COUNT)
    points, claimed = jax.jit(jax.vmap(lambda w: (constraint.project(w), constraint.gain(w))))(w)
    points = np.asarray(points)
    assert constraint.exact
    assert reference.lies_in(constraint, points).all()
    gain = energy(w) - energy(w - points)
    best = reference.best_gain(constraint, w)
    np.testing.assert_allclose(gain, best, rtol=1e-5, atol=0)
    np.testing.assert_allclose(claimed, best, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "name",
    [
        *("patterns", "polarized", "kernels+polarized-spanning", "all-four", "all-four-spanning"),
        *("natural", "powers", "nofm-conv", "channels+patterns", "channels-of-inputs+natural"),
    ],
)
def test_reference_tells_a_wrong_projection(name):
    """The enumeration has teeth: the projection of another weight, or onto a subset, is told apart."""
    constraint, shape = CASES[name]
    w = reference.instances(np.random.default_rng(0), shape, 100)
    points = np.asarray(jax.jit(jax.vmap(constraint.project))(w))
    assert (energy(w) - energy(w - points / 2) < reference.best_gain(constraint, w) - 1e-3).mean() > 0.9
    assert not reference.lies_in(constraint, w).all()


@st.composite
def trees(draw):
    """Numbers of a random nest and of a shape it fits, of at most eight elements."""
    taps, kernels = draw(st.sampled_from([(1, 8), (1, 5), (2, 2), (2, 3), (2, 4), (3, 2), (4, 2)]))
    pattern = st.lists(st.integers(0, taps - 1), min_size=1, max_size=taps, unique=True).map(sorted).map(tuple)
    numbers = {
        Kernels: draw(st.none() | st.tuples(st.integers(1, kernels))),
        Patterns: draw(st.none() | st.tuples(st.lists(pattern, min_size=1, max_size=4, unique=True).map(tuple))),
        Polarized: draw(st.none() | st.tuples(st.integers(1, 3).map(lambda span: span * taps))),
        Levels: draw(
            st.none()
            | st.tuples(
                st.integers(2, 4), st.sampled_from([0.25, 0.3, 1.0]), st.sampled_from(["fixed", "powers", "slices"])
            )
        ),
    }
    order = draw(st.permutations(list(numbers)))
    return (1, taps, kernels, 1), [(kind, numbers[kind]) for kind in order if numbers[kind] is not None]


@settings(max_examples=15)
@given(trees(), st.integers(0, 2**32 - 1))
def test_random_trees(tree, seed):
    shape, parts = tree
    constraint = nest(*(kind(*numbers) for kind, numbers in parts or [(TopK, (2,))]))
    w = reference.instances(np.random.default_rng(seed), shape, 40)
    points = np.asarray(jax.jit(jax.vmap(constraint.project))(w))
    assert reference.lies_in(constraint, points).all()
    np.testing.assert_allclose(energy(w) - energy(w - points), reference.best_gain(constraint, w), rtol=1e-5)
