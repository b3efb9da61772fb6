"""Charts: the box of each set, its straight-through gradient, and training inside it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum.constraints import MEST_8, Box, Kernels, Levels, Patterns, Polarized, TopK, nest

JOINT = nest(Kernels(2), Patterns(MEST_8), Polarized(9), Levels(4, 0.25))


def test_box_of_each_set():
    w = jnp.array([[3.0], [-1.0], [0.5], [-2.0]])
    inf = np.inf

    def bounds(constraint):
        _, box = constraint.chart(w)
        return list(zip(np.ravel(box.low).tolist(), np.ravel(box.high).tolist(), strict=True))

    assert bounds(TopK(2)) == [(-inf, inf), (0, 0), (0, 0), (-inf, inf)]
    assert bounds(Polarized(2)) == [(0, inf), (0, inf), (-inf, 0), (-inf, 0)]
    assert bounds(Levels(3, 0.5)) == [(-1.5, 1.5)] * 4
    assert bounds(nest(Kernels(2), Polarized(2), Levels(3, 0.5))) == [(0, 1.5), (0, 0), (0, 0), (-1.5, 0)]


@pytest.mark.parametrize(
    ("theta", "g", "passes"),
    [
        (1.0, 1.0, True),
        (1.0, -1.0, True),
        (0.0, 1.0, False),
        (0.0, -1.0, True),
        (-4.0, 1.0, False),
        (-4.0, -1.0, True),
        (9.0, 1.0, True),
        (9.0, -1.0, False),
    ],
)
def test_gradient_of_a_bounded_coordinate(theta, g, passes):
    """Zero only at or past a bound, and only where a descent step leads further out."""
    box = Box(low=jnp.zeros(1), high=jnp.full(1, 2.0))
    gradient = jax.grad(lambda theta: g * box(theta)[0])(jnp.full(1, theta))
    assert float(gradient[0]) == (g if passes else 0)


def test_gradient_equals_finite_differences_inside(key):
    """Away from bounds and without a grid the chart is the identity; its gradient is a true one."""
    w = jax.random.normal(key, (3, 3, 4, 3))
    theta, build = nest(Kernels(2), Patterns(MEST_8), Polarized(9)).chart(w)
    target = jax.random.normal(jax.random.key(1), w.shape)

    def loss(theta):
        return jnp.sum(jnp.square(build(theta) - target))

    gradient = np.asarray(jax.grad(loss)(theta))
    for index in zip(*np.nonzero(theta), strict=True):
        step = 1e-2 * float(theta[index])
        difference = (loss(theta.at[index].add(step)) - loss(theta.at[index].add(-step))) / (2 * step)
        np.testing.assert_allclose(gradient[index], difference, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("constraint", [Polarized(9), nest(Kernels(2), Patterns(MEST_8), Polarized(9))])
def test_training_in_the_chart_finds_the_best_of_its_box(constraint, key):
    """Convex there: clamping the target. From a start where half of what is needed is clamped to zero."""
    w = jax.random.normal(key, (3, 3, 4, 3))
    target = jax.random.normal(jax.random.key(1), w.shape)
    theta, build = constraint.chart(w)
    theta = -theta  # the far side of every bound: all weights are zero, and must come back
    assert not np.any(build(theta))
    tx = optax.sgd(0.1, momentum=0.5)

    def step(carry, _):
        theta, state = carry
        gradient = jax.grad(lambda theta: jnp.sum(jnp.square(build(theta) - target)))(theta)
        updates, state = tx.update(gradient, state)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), constraint.violation(build(theta))

    (theta, _), violations = jax.lax.scan(step, (theta, tx.init(theta)), length=500)
    assert not np.any(violations)
    np.testing.assert_allclose(build(theta), jnp.clip(target, build.low, build.high), atol=1e-4)


def test_straight_through_rounding_trains_levels(key):
    """A loss flat between levels still moves them: plain gradients of rounding are zero."""
    w = jax.random.normal(key, (20, 6))
    constraint = Levels(3, 0.5)
    theta, build = constraint.chart(w)
    target = jax.random.normal(jax.random.key(1), w.shape)

    def loss(theta):
        return jnp.sum(jnp.square(build(theta) - target))

    def step(theta, _):
        return theta - 0.05 * jax.grad(loss)(theta), None

    trained, _ = jax.lax.scan(step, theta, length=100)
    best = float(jnp.sum(jnp.square(constraint.project(target) - target)))
    assert float(loss(trained)) < 0.3 * float(loss(theta))
    assert float(loss(trained)) < 2.5 * best
    assert float(constraint.violation(build(trained))) == 0


def test_chart_leaves_jit_and_maps(key):
    w = jax.random.normal(key, (4, 3, 3, 4, 3))
    theta, build = jax.jit(jax.vmap(JOINT.chart))(w)
    assert isinstance(build, Box)
    built = jax.vmap(lambda build, theta: build(theta))(build, theta)
    np.testing.assert_array_equal(built, jax.vmap(JOINT.project)(w))
    counts = jnp.array([1, 2, 3])
    _, boxes = jax.vmap(lambda k: Kernels(k).chart(w[0]))(counts)
    free = np.asarray(boxes.high > 0).any(axis=(1, 2)).sum(axis=1)
    np.testing.assert_array_equal(free, [[1] * 3, [2] * 3, [3] * 3])


def test_dead_coordinates_stay_dead_whatever_the_optimizer_does(key):
    """Stale Adam moments bring masked weights back; a chart has no way to."""
    w = jax.random.normal(key, (3, 3, 4, 3))
    theta, build = JOINT.chart(w)
    tx = optax.adamw(0.5, weight_decay=0.1)
    state = tx.init(theta)
    for at in range(5):
        noise = jax.random.normal(jax.random.key(at), theta.shape)
        updates, state = tx.update(noise, state, theta)
        theta = optax.apply_updates(theta, updates)
    built = build(theta)
    assert not np.any(np.asarray(built)[(np.asarray(build.low) == 0) & (np.asarray(build.high) == 0)])
    assert float(JOINT.violation(built)) == 0
