"""What every constraint must do, over a registry: a new one that is exported but not registered fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import constraints
from modicum.constraints import (
    MEST_8,
    PCONV_4,
    BlockColumnRow,
    Channels,
    Hankel,
    Kernels,
    Levels,
    NaturalPatterns,
    Nest,
    NofM,
    Patterns,
    Polarized,
    Split,
    TopK,
    Unified,
    nest,
    split,
)
from modicum.core import Bytes, Constraint, Packed

pytestmark = pytest.mark.optimized

CONV, DENSE = (3, 3, 5, 6), (10, 7)

# A library as `fit` leaves it; the contract has it read off other weights than those that are projected.
NATURAL = NaturalPatterns(6).fit(jax.random.normal(jax.random.key(9), CONV))

REGISTRY = {
    "topk": (TopK(40), CONV),
    "topk-few": (TopK(3), DENSE),
    "kernels": (Kernels(2), CONV),
    "kernels-layer-dense": (Kernels(20, balanced=False), DENSE),
    "kernels-group": (Kernels(2, group=4), CONV),
    "patterns": (Patterns(MEST_8), CONV),
    "patterns-uneven-group": (Patterns(((4,), (0, 4, 5), (1, 2)), group=4), CONV),
    "polarized": (Polarized(8), CONV),
    "levels": (Levels(4, 0.31), CONV),
    "levels-unfitted": (Levels(8), DENSE),
    "topk+levels": (nest(TopK(30), Levels(5, 0.1)), DENSE),
    "layer": (nest(Kernels(11, balanced=False), Patterns(PCONV_4), Polarized(3)), CONV),
    "groups": (nest(Kernels(2, group=4), Patterns(PCONV_4, group=2), Polarized(9), Levels(3, 0.5)), CONV),
    "all": (nest(Kernels(2), Patterns(MEST_8), Polarized(9), Levels(4, 0.31)), CONV),
    "all-unfitted": (nest(Kernels(3), Patterns(((0, 4, 8),)), Polarized(9), Levels(4)), CONV),
    "spanning": (nest(Kernels(3), Patterns(MEST_8), Polarized(18)), CONV),
    "spanning-dense": (nest(Kernels(4), Polarized(4), Levels(2, 0.8)), DENSE),
    "natural-unfitted": (NaturalPatterns(6, group=2), CONV),
    "natural": (nest(Kernels(3), NATURAL, Polarized(9), Levels(4)), CONV),
    "powers": (Levels(4, kind="powers"), DENSE),
    "slices": (nest(Kernels(3), Levels(8, kind="slices", cell_bits=2, slices=2)), DENSE),
    "nofm": (NofM(2, 4, axis=1), CONV),
    "nofm+polarized": (nest(NofM(2, 4), Polarized(4), Levels(4, 0.05, "powers")), DENSE),
    "channels-of-inputs": (nest(Channels(3, axis=-2), NATURAL, Levels(5, 0.02, "slices")), CONV),
    "channels-tree": (nest(Channels(4), Kernels(3), NATURAL, Polarized(18), Levels(4, 0.3)), CONV),
    "channels": (Channels(3), CONV),
    "blocks": (BlockColumnRow(2, 4, strips=2, blocks=3), DENSE),
    "blocks+levels": (nest(BlockColumnRow(1, strips=3, blocks=2), Levels(4)), DENSE),
    "unified": (Unified((1, 4, 4), 0.5, 0.25), CONV),
    "unified-superblocks": (nest(Unified((2, 2), 0.6, superblock=(4, 4)), Levels(5, 0.1)), DENSE),
    "unified+patterns": (nest(Unified((9, 2, 2), 0.5, 0.25), Patterns(MEST_8)), CONV),
    "hankel": (Hankel(3), DENSE),
    "split": (split(NofM(2, 4), Patterns(MEST_8)), CONV),
    "split+levels": (split(TopK(30), Polarized(4), Levels(4)), DENSE),
}

each = pytest.mark.parametrize("name", REGISTRY)


def case(name, dtype=jnp.float32, seed=0):
    constraint, shape = REGISTRY[name]
    return constraint, jax.random.normal(jax.random.key(seed), shape, dtype)


def layout(constraint):
    return constraint.plan.layout if hasattr(constraint, "plan") else constraint.layout


def has_levels(constraint):
    return "levels" in layout(constraint)


def has_given_scale(constraint):
    parts = jax.tree.leaves(constraint, is_leaf=lambda part: isinstance(part, Levels))
    return any(isinstance(part, Levels) and part.scale is not None for part in parts)


def same(a, b):
    """Equal bit for bit, signs of zeros included."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_every_exported_constraint_is_registered():
    exported = [getattr(constraints, name) for name in constraints.__all__]
    kinds = {kind for kind in exported if isinstance(kind, type) and hasattr(kind, "project")}
    assert kinds == {type(constraint) for constraint, _ in REGISTRY.values()}
    assert Nest in kinds


@each
def test_protocol_and_pytree(name):
    constraint, _ = case(name)
    assert isinstance(constraint, Constraint)
    leaves, treedef = jax.tree.flatten(constraint)
    assert treedef.unflatten(leaves) == constraint
    assert hash(constraint) == hash(treedef.unflatten(leaves))
    assert not jax.tree.leaves(jax.tree.map(lambda _: None, constraint))
    with pytest.raises(AttributeError):
        constraint.k = 3


@each
def test_project_certify_and_return(name):
    """One jitted program; eager results are the same bits, and the second call compiles nothing."""
    constraint, w = case(name)
    compiled = 0

    @jax.jit
    def everything(w):
        nonlocal compiled
        compiled += 1
        p = constraint.project(w)
        return p, constraint.violation(p)

    p, zero = everything(w)
    everything(w + 1)
    assert compiled == 1
    assert float(zero) == 0
    eager = constraint.project(w)
    assert same(p, eager)
    assert same(p, constraint.project(p))
    assert same(constraint.decode(constraint.encode(w)), eager)
    assert float(constraint.violation(eager)) == 0
    assert not np.signbit(np.asarray(p)[np.asarray(p) == 0]).any()
    exact_w, exact_p = np.asarray(w, np.float64), np.asarray(p, np.float64)
    distance = np.sum((exact_w - exact_p) ** 2)
    np.testing.assert_allclose(constraint.violation(w), np.sqrt(distance / np.sum(exact_w**2)), rtol=1e-5)
    np.testing.assert_allclose(constraint.gain(w), np.sum(exact_w**2) - distance, rtol=1e-5)


@each
def test_member_of_extreme_range_stays(name):
    """Weights 25 decades apart: squares underflow, membership must not."""
    constraint, w = case(name)
    decades = jax.random.uniform(jax.random.key(1), w.shape, minval=-25, maxval=0)
    p = constraint.project(w * 10**decades)
    assert same(constraint.project(p), p)
    assert float(constraint.violation(p)) == 0
    for scale in (2.0**-100, 2.0**100):
        if has_given_scale(constraint):
            continue  # a given scale does not move with the weights
        assert same(constraint.project(w * scale), constraint.project(w) * scale)


@each
def test_vmap_over_weights(name):
    constraint, shape = REGISTRY[name]
    w = jax.random.normal(jax.random.key(2), (3, *shape))
    mapped = jax.jit(jax.vmap(lambda w: (constraint.project(w), constraint.decode(constraint.encode(w)))))(w)
    for at in range(3):
        assert same(mapped[0][at], constraint.project(w[at]))
        assert same(mapped[1][at], mapped[0][at])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, jnp.bfloat16) for name in REGISTRY), ("groups", jnp.float16), ("levels-unfitted", jnp.float16)],
)
def test_short_floats(name, dtype):
    constraint, w = case(name, dtype)

    p = constraint.project(w)
    assert p.dtype == dtype
    assert same(p, constraint.project(p))
    assert same(p, constraint.decode(constraint.encode(w)))
    assert float(jax.jit(constraint.violation)(p)) == 0
    # Choices are made in float32, not in the short type.
    wide = np.asarray(constraint.project(w.astype(jnp.float32)).astype(dtype), np.float64)
    if not has_levels(constraint):
        np.testing.assert_array_equal(np.asarray(p, np.float64), wide)


@each
def test_chart_stays_in_the_set(name):
    constraint, w = case(name)

    @jax.jit
    def everything(w, step):
        p = constraint.project(w)
        fixed = constraint.fit(p)
        theta, build = fixed.chart(p)
        moved = build(theta + step)
        gradient = jax.grad(lambda theta: jnp.sum(build(theta) * jnp.sign(-p)))(theta)
        return p, theta, build, build(theta), moved, fixed.violation(moved), gradient

    step = 5 * jax.random.normal(jax.random.key(3), w.shape)
    p, theta, build, start, moved, violation, gradient = everything(w, step)
    assert theta.dtype == jnp.float32
    assert same(start, p)
    assert float(violation) == 0
    assert same(build(theta + step), moved)
    # A loss that asks every kept weight to grow sees all of them, but those at the end of the grid.
    kept = np.asarray(p) != 0
    limit = np.abs(np.asarray(p)).max()
    inner = kept if not has_levels(constraint) else kept & (np.abs(np.asarray(p)) < limit)
    assert np.all(np.asarray(gradient)[inner] == -np.sign(np.asarray(p))[inner])


@each
def test_zero_and_equal_weights(name):
    constraint, w = case(name)
    zero = jnp.zeros_like(w)
    assert same(constraint.project(zero), zero)
    assert same(constraint.project(-zero), zero)
    assert float(constraint.violation(zero)) == 0
    assert float(constraint.gain(zero)) == 0
    ones = jnp.ones_like(w)
    p = constraint.project(ones)
    assert same(constraint.decode(constraint.encode(ones)), p)
    assert same(jax.jit(constraint.project)(ones), p)


@each
def test_bytes_are_those_of_the_arrays(name):
    constraint, w = case(name)
    packed = constraint.encode(w)
    assert isinstance(packed, Packed)
    parts = packed.nbytes
    assert parts == Bytes(
        *(sum(np.asarray(a).nbytes for a in part.values()) for part in (packed.payload, packed.index, packed.metadata))
    )
    assert 0 < parts.total < w.nbytes
    traced = jax.jit(constraint.encode)(w)
    assert (traced.layout, traced.shape) == (packed.layout, packed.shape)
    if isinstance(constraint, Split):
        assert traced.nbytes.total >= parts.total  # room for the most non-zeros there may be
    else:
        assert traced.nbytes == parts
        assert traced.static == packed.static


@each
def test_bad_weights(name):
    constraint, w = case(name)
    for bad in (jnp.nan, jnp.inf):
        with pytest.raises(ValueError, match="w must be finite"):
            constraint.project(w.at[(0,) * w.ndim].set(bad))
    for shape in ((), (0, 3)):
        with pytest.raises(ValueError, match="w must have at least one axis and one element"):
            constraint.project(jnp.zeros(shape))
    other = next(each for each, _ in REGISTRY.values() if layout(each) != layout(constraint))
    with pytest.raises(ValueError, match="packed must have layout"):
        other.decode(constraint.encode(w))
