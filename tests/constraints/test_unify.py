"""`Unified` against enumeration of all classes, patterns and levels of small weights; its chart and packed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.constraints import Kernels, Levels, Patterns, TopK, Unified, nest
from modicum.constraints.assign import smallest, two_classes
from tests.constraints.reference import instances

PAIRS = ((0, 1), (1, 2), (0, 2))

CASES = {
    "short": (Unified((2, 2), 0.6), (3, 5)),
    "pruned": (Unified((1, 2), 0.34, 0.34), (2, 6)),
    "everything": (Unified((1, 2), 0.5, 0.5), (2, 6)),
    "superblocks": (Unified((1, 1, 2), 0.5, 0.25, superblock=(1, 1, 4)), (3, 7)),
    "window": (Unified((4, 1, 1), 0.5, 0.25), (2, 2, 2, 2)),
    "levels": (nest(Unified((1, 2), 0.4, 0.2), Levels(3, 0.5)), (2, 5)),
    "patterns": (nest(Unified((3, 1, 2), 0.5, 0.25), Patterns(PAIRS)), (1, 3, 2, 3)),
    "patterns+levels": (nest(Unified((3, 1, 1), 0.5, 0.25), Patterns(PAIRS), Levels(3, 0.5)), (3, 1, 2, 2)),
}


def blocks(constraint, shape):
    """Super-blocks as lists of blocks, a block as its kernels, a kernel as flat places in the weight, by hand."""
    *window, inputs, outputs = shape
    view = (int(np.prod(window)), inputs, outputs)
    place = np.arange(np.prod(shape)).reshape(view)
    big = constraint.superblock or view
    result = []
    for corner in itertools.product(*(range(0, n, step) for n, step in zip(view, big, strict=True))):
        inside = [range(at, min(at + step, n)) for at, step, n in zip(corner, big, view, strict=True)]
        starts = [span[::step] for span, step in zip(inside, constraint.block, strict=True)]
        group = []
        for start in itertools.product(*starts):
            taps, ins, outs = (
                range(at, min(at + step, span.stop))
                for at, step, span in zip(start, constraint.block, inside, strict=True)
            )
            group.append([[place[t, i, o] for t in taps] for i, o in itertools.product(ins, outs)])
        result.append(group)
    return result


def joined(kernels):
    return [place for kernel in kernels for place in kernel]


def supports(constraint, block):
    """Every support a block may have, as flat places."""
    if constraint.patterns is None:
        return [joined(block)]
    options = [[[kernel[tap] for tap in pattern] for pattern in constraint.patterns.library] for kernel in block]
    return [joined(choice) for choice in itertools.product(*options)]


def grid(constraint):
    top = 2 ** (constraint.levels.bits - 1) - 1
    return float(np.float32(constraint.levels.scale)) * np.arange(top + 1)


def costs(constraint, w, block):
    """Squared distance of a block from being free, unified and zero: three arrays `(m,)`."""
    magnitude = np.abs(w.astype(np.float64))
    energy = (magnitude[:, joined(block)] ** 2).sum(axis=1)
    free, unified = [], []
    for support in supports(constraint, block):
        on = magnitude[:, support]
        off = energy - (on**2).sum(axis=1)
        if constraint.levels is None:
            free.append(off)
            unified.append(off + ((on - on.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
        else:
            apart = (on[..., None] - grid(constraint)) ** 2
            free.append(off + apart.min(axis=2).sum(axis=1))
            unified.append(off + apart.sum(axis=1).min(axis=1))
    return np.min(free, axis=0), np.min(unified, axis=0), energy


def counts(constraint, n):
    zero = round(constraint.pruned * n)
    return min(round(constraint.fraction * n), n - zero), zero


def least_loss(constraint, w):
    """Least squared distance of each of `(m, *shape)`, over every assignment of blocks to the three classes."""
    flat = w.reshape(len(w), -1)
    total = np.zeros(len(w))
    for group in blocks(constraint, w.shape[1:]):
        table = np.array([costs(constraint, flat, block) for block in group])
        unified, zero = counts(constraint, len(group))
        every = np.array(list(itertools.product(range(3), repeat=len(group))))
        every = every[((every == 1).sum(axis=1) == unified) & ((every == 2).sum(axis=1) == zero)]
        total += np.min([sum(table[b, kind] for b, kind in enumerate(kinds)) for kinds in every], axis=0)
    return total


def lies_in(constraint, p):
    flat = np.abs(p.reshape(len(p), -1).astype(np.float64))
    ok = np.ones(len(p), bool)
    for group in blocks(constraint, p.shape[1:]):
        equal, zero = np.zeros(len(p), int), np.zeros(len(p), int)
        for block in group:
            fits, shared = np.zeros(len(p), bool), np.zeros(len(p), bool)
            for support in supports(constraint, block):
                off = [place for place in joined(block) if place not in support]
                on = (flat[:, off] == 0).all(axis=1)
                fits |= on
                shared |= on & (flat[:, support] == flat[:, support[:1]]).all(axis=1)
            ok &= fits
            equal += shared
            zero += (flat[:, joined(block)] == 0).all(axis=1)
        unified, pruned = counts(constraint, len(group))
        ok &= (zero >= pruned) & (equal >= unified + pruned)
    if constraint.levels is not None:
        ok &= np.abs(flat[..., None] - grid(constraint)).min(axis=-1).max(axis=1) <= 1e-6
    return ok


@pytest.mark.parametrize("name", CASES)
def test_projection_is_the_nearest_point(name):
    constraint, shape = CASES[name]
    w = instances(np.random.default_rng(len(name)), shape, 1200)

    @jax.jit
    @jax.vmap
    def everything(w):
        p = constraint.project(w)
        return p, constraint.violation(p)

    points, violation = map(np.asarray, everything(w))
    assert constraint.exact
    assert lies_in(constraint, points).all()
    loss = ((w.astype(np.float64) - points) ** 2).reshape(len(w), -1).sum(axis=1)
    energy = (w.astype(np.float64) ** 2).reshape(len(w), -1).sum(axis=1)
    np.testing.assert_allclose(energy - loss, energy - least_loss(constraint, w), rtol=1e-5, atol=1e-5)
    assert np.all(violation == 0)


@pytest.mark.parametrize("whole", [True, False])
def test_two_classes_are_chosen_together(whole):
    """Against all assignments; small whole costs tie everywhere. Pruning first, then unifying, costs more."""
    rng = np.random.default_rng(7)
    m, b = 2000, 7
    unify = rng.integers(0, 3, (m, b)) if whole else rng.exponential(size=(m, b))
    prune = unify + (rng.integers(0, 3, (m, b)) if whole else rng.exponential(size=(m, b)) ** 2)
    k = rng.integers(0, b + 1, m)
    p = rng.integers(0, b - k + 1)
    chosen = jax.jit(two_classes)(*(jnp.asarray(x, jnp.float32) for x in (unify, prune)), *map(jnp.asarray, (k, p)))
    unified, pruned = map(np.asarray, chosen)
    np.testing.assert_array_equal(unified.sum(axis=1), k)
    np.testing.assert_array_equal(pruned.sum(axis=1), p)
    assert not (unified & pruned).any()
    cost = (unify * unified + prune * pruned).sum(axis=1)
    every = np.array(list(itertools.product(range(3), repeat=b)))
    total = unify @ (every == 1).T + prune @ (every == 2).T
    sizes = ((every == 1).sum(axis=1)[None] == k[:, None]) & ((every == 2).sum(axis=1)[None] == p[:, None])
    best = np.where(sizes, total, np.inf).min(axis=1)
    np.testing.assert_allclose(cost, best, rtol=1e-6, atol=1e-5)
    order = np.argsort(prune, axis=1, kind="stable")
    zeros = np.argsort(order, axis=1) < p[:, None]
    rest = np.sort(np.where(zeros, np.inf, unify), axis=1)
    greedy = (prune * zeros).sum(axis=1) + np.array([row[:n].sum() for row, n in zip(rest, k, strict=True)])
    assert np.mean(greedy) > 1.01 * np.mean(best)


def test_smallest_is_stable_and_exact():
    cost = jnp.array([[2.0, -1.0, 2.0, -0.0, 0.0, jnp.inf], [3e-39, 1.0, 1.0, 1.0, -jnp.inf, 2.0]])
    for k in range(7):
        marked = np.asarray(smallest(cost, jnp.full((2,), k)))
        order = np.argsort(np.asarray(cost), axis=1, kind="stable")
        np.testing.assert_array_equal(marked, np.argsort(order, axis=1) < k)


def test_chart_trains_the_magnitude():
    """Gradient descent on `||build(theta) - w||^2` ends at the best magnitude for the signs, or at zero."""
    target = jnp.array([[3.0, -1.0, 2.0, -4.0, 0.3, 0.2]])
    constraint = Unified((1, 2), 0.67)
    theta, build = constraint.chart(jnp.array([[1.0, -1.0, 5.0, 7.0, 0.5, 0.5]]))
    step = jax.jit(lambda theta: theta - 0.2 * jax.grad(lambda t: jnp.sum((build(t) - target) ** 2))(theta))
    for _ in range(60):
        theta = step(theta)
    np.testing.assert_allclose(build(theta), [[2.0, -2.0, 2.0, -4.0, 0.25, 0.25]], rtol=1e-5)
    away = build(-theta)
    np.testing.assert_array_equal(away[0, [0, 1, 4, 5]], 0.0)
    assert not np.signbit(away[0, :2]).any()


def test_rates_may_be_traced(key):
    w = jax.random.normal(key, (3, 3, 6, 5))
    target = Unified((1, 4, 4), 0.5, 0.25, superblock=(3, 4, 4))
    shares = jnp.array([1.0, 0.4, 0.0])
    points = jax.jit(jax.vmap(lambda share: target.relaxed(w.shape, share).project(w)))(shares)
    np.testing.assert_array_equal(points[0], w)
    np.testing.assert_array_equal(points[2], target.project(w))
    assert float(target.relaxed(w.shape, 0.4).violation(points[1])) == 0
    with pytest.raises(ValueError, match="fraction must be a concrete number to encode"):
        jax.jit(lambda share: target.relaxed(w.shape, share).encode(w))(0.5)


def test_bytes_of_a_layer(key):
    """1,152 blocks of 16 in a 3x3 layer of 32 to 64 channels: half one magnitude and 16 signs, a quarter zero."""
    w = jax.random.normal(key, (3, 3, 32, 64))
    packed = Unified((1, 4, 4), 0.5, 0.25).encode(w)
    assert {name: array.nbytes for name, array in packed.payload.items()} == {
        "magnitudes": 576 * 31 // 8,
        "signs": 576 * 2,
        "values": 288 * 16 * 4,
    }
    assert packed.nbytes.index == 2 * 1152 // 8
    both = nest(Unified((9, 4, 4), 1.0), Levels(4)).encode(w)
    assert both.nbytes.payload == 128 * 3 // 8 + 128 * 18
    assert both.nbytes.index == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unified((4,), 0.5), r"block must be \(taps, in, out\) or \(in, out\)"),
        (lambda: Unified((4, 0), 0.5), "block must be"),
        (lambda: Unified((4, 4), 1.5), "fraction must lie from 0 to 1"),
        (lambda: Unified((4, 4), 0.5, 0.6), "fraction and pruned must add up to at most 1"),
        (lambda: Unified((4, 4), 0.5, superblock=(8, 6)), "superblock must be a multiple of block"),
        (lambda: Unified((4, 4), 0.5).project(jnp.ones(8)), "w must have 2 axes"),
        (lambda: nest(Unified((4, 4), 0.5), Kernels(2)), "Unified nests with Levels and patterns only"),
        (lambda: nest(TopK(2), Unified((4, 4), 0.5)), "Unified nests with Levels and patterns only"),
        (lambda: nest(Unified((4, 4), 0.5), Levels(3), Levels(4)), "nest takes each kind of set once"),
        (lambda: nest(Unified((9, 4, 4), 0.5), Patterns(((0,), (1, 2)))), "library must hold patterns of one size"),
        (lambda: nest(Unified((9, 4, 4), 0.5), Patterns(PAIRS, group=2)), "group must be 1 to nest patterns"),
        (
            lambda: nest(Unified((1, 4, 4), 0.5), Patterns(PAIRS)).project(jnp.ones((3, 3, 4, 4))),
            "block must hold whole kernels of 9 taps",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
