"""`split` against enumeration: always in every part, never further than one part after the other, near the best."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import (
    BlockColumnRow,
    Kernels,
    Levels,
    NofM,
    Patterns,
    Polarized,
    Split,
    TopK,
    Unified,
    nest,
    split,
)
from tests.constraints import reference

PAIRS = ((0, 1), (1, 2), (0, 2))

# Parts, shape, and how much of the excess of one part after the other may be left.
CASES = {
    "nofm+patterns": (split(NofM(2, 4), Patterns(((0,), (1,)))), (1, 2, 4, 1), 0.15),
    "topk+polarized": (split(TopK(4), Polarized(4)), (8, 1), 0.01),
    "kernels+patterns-group": (split(Kernels(1), Patterns(((0,), (1,)), group=2)), (1, 2, 2, 2), 0.1),
    "topk+polarized+levels": (split(TopK(4), Polarized(4), Levels(3, 0.5)), (8, 1), 0.01),
}


def levels_of(both):
    return next((part for part in both.parts if isinstance(part, Levels)), both.parts[0])


def allowed(both, signs):
    return np.all([reference.obeys(part, signs) for part in both.parts], axis=0)


def best_gain(both, w):
    shape = w.shape[1:]
    signs = np.array(list(itertools.product((-1, 0, 1), repeat=int(np.prod(shape)))), np.int8)
    signs = signs[allowed(both, signs.reshape(-1, *shape))]
    negative, positive = reference.sign_gains(levels_of(both), w)
    best = np.full(len(w), -np.inf)
    for part in np.array_split(signs, -(-len(signs) // 4096)):
        best = np.maximum(best, (negative @ (part == -1).T + positive @ (part == 1).T).max(axis=1))
    return best


def energy(w):
    return (np.asarray(w, np.float64) ** 2).reshape(len(w), -1).sum(axis=1)


@pytest.mark.parametrize("name", CASES)
def test_in_every_part_and_near_the_best(name):
    both, shape, left = CASES[name]
    w = reference.instances(np.random.default_rng(len(name)), shape, 1200)

    @jax.jit
    @jax.vmap
    def everything(w):
        p = both.project(w)
        after = w
        for part in both.parts:
            after = part.project(after)
        return p, after, both.violation(p), both.violations(p), both.violations(w)

    p, after, violation, certified, before = map(np.asarray, everything(w))
    assert not both.exact
    assert allowed(both, np.sign(p)).all()
    if isinstance(levels_of(both), Levels):
        assert reference.lies_in(levels_of(both), p).all()
    assert np.all(violation == 0)
    assert np.all(certified == 0)
    inside = allowed(both, np.sign(w)) & reference.lies_in(levels_of(both), w)
    np.testing.assert_array_equal((before == 0).all(axis=1), inside)
    distance, plain, least = energy(w - p), energy(w - after), energy(w) - best_gain(both, w)
    slack = 1e-5 * energy(w)
    assert np.all(distance <= plain + slack)
    assert np.all(distance >= least - slack)
    excess = [(far - least).mean() / least.mean() for far in (plain, distance)]
    missed = [np.mean(far > least + slack) for far in (plain, distance)]
    print(f"{name}: excess {excess[0]:.2%} -> {excess[1]:.3%}; not nearest {missed[0]:.1%} -> {missed[1]:.1%}")
    assert excess[1] < left * excess[0]


def test_a_layer_of_many_groups(key):
    """One weight of 500 independent columns: the optimum is the sum of small ones, no lucky candidate fits all."""
    both = split(NofM(1, 3), Patterns(PAIRS))
    columns = np.asarray(jax.random.normal(key, (500, 1, 3, 3, 1)))
    layer = jnp.asarray(np.moveaxis(columns, 0, -2)[..., 0])
    least = (energy(columns) - best_gain(both, columns)).sum()
    far = [float(jnp.sum((layer - p) ** 2)) for p in (both.project(layer), after(both, layer), after(both, layer, -1))]
    print("layer:", *(f"{each / least - 1:.2%}" for each in far))
    assert least * (1 - 1e-5) <= far[0] < 1.005 * least
    assert min(far[1:]) > 1.015 * least


def after(both, w, step=1):
    for part in both.parts[::step]:
        w = part.project(w)
    return w


def test_blocks_and_nests_are_parts(key):
    w = jax.random.normal(key, (12, 8))
    both = split(nest(BlockColumnRow(2, 5, strips=2, blocks=3), Levels(4, 0.3)), split(NofM(1, 2)))
    assert isinstance(both, Split)
    assert len(both.parts) == 2
    fitted = both.fit(w)
    p = fitted.project(w)
    assert np.all(np.asarray(fitted.violations(p)) == 0)
    packed = both.encode(w)
    count = int(np.count_nonzero(p))
    assert packed.nbytes.payload == -(-count * 4 // 8)
    assert packed.nbytes.index == min(-(-count * 7 // 8), 12)
    np.testing.assert_array_equal(both.decode(packed), p)
    everything = fitted.relaxed(w.shape, 1.0)
    assert int(everything.parts[0].columns) == 4
    assert split(both) == both
    assert split(TopK(2)) == TopK(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (split, "split must be given at least one constraint, got none"),
        (lambda: split(TopK(2), Unified((4, 4), 0.5)), "split takes sets whose members may lose elements"),
        (lambda: split(TopK(2), 3), "split takes constraints of this library, got 3"),
        (lambda: split(Levels(4), nest(TopK(2), Levels(3))), "split takes one set with levels at most"),
        (lambda: split(TopK(9), Polarized(2)).project(jnp.ones((2, 2))), "k must be from 1 to the 4 elements"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
