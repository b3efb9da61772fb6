"""Parameter trees of linen, NNX and equinox, and the helpers on trees of constraints."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from modicum import admm
from modicum.core import map_by_path
from tests.admm.members import CONSTRAINTS, PARAMS, Grid, Keep

CONFIG = admm.CompressConfig(outer=2, inner=4, retrain=5, chunk=5, learning_rate=0.01, retrain_learning_rate=0.01)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(jnp.tanh(linen.Dense(6)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def linen_net(key):
    net = Linen()
    return net.init(key, jnp.ones((1, 3))), net.apply


def nnx_net(key):
    graph, params = nnx.split(Nnx(nnx.Rngs(0)))
    return params, lambda params, x: nnx.merge(graph, params)(x)


def equinox_net(key):
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3, 2, 6, 1, activation=jnp.tanh, key=key)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    return params, lambda params, x: jax.vmap(eqx.combine(params, static))(x)


def constraints_of(params):
    def chosen(path, leaf):
        return None if leaf.ndim < 2 else Grid(7) if "1" in path or "second" in path else Keep(5)

    return map_by_path(chosen, params)


@pytest.mark.parametrize("make", [linen_net, nnx_net, equinox_net])
@pytest.mark.parametrize("as_function", [False, True])
def test_any_parameter_tree(make, as_function, key, tmp_path):
    params, apply = make(key)

    def loss_fn(params, batch):
        return jnp.mean((apply(params, batch) - jnp.sin(batch[:, :2])) ** 2)

    batches = jax.random.normal(key, (3, 8, 3))
    constraints = constraints_of if as_function else constraints_of(params)
    result = admm.compress(loss_fn, params, batches, constraints, CONFIG, folder=tmp_path)
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    assert apply(result.params, batches[0]).shape == (8, 2)
    assert len(result.packed) == len(result.report.leaves) == 2
    assert result.report.violation == 0
    assert all(leaf.round_trip for leaf in result.report.leaves)
    assert result.report.leaves[0].kept <= 5
    # the transformation on the same tree
    optimizer = optax.chain(optax.adam(0.01), admm.admm(constraints, 1.0, every=1, learning_rate=0.01))
    state = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(jax.grad(loss_fn)(params, batches[0]), state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert len(jax.tree.leaves(state[-1].z)) == 2
    # and a finished run is found again
    again = admm.compress(loss_fn, params, batches, constraints, CONFIG, folder=tmp_path)
    chex.assert_trees_all_equal(again.params, result.params)


def test_an_equinox_module_of_constraints_is_a_tree_and_no_function():
    eqx = pytest.importorskip("equinox")
    params = eqx.filter(eqx.nn.Linear(3, 2, key=jax.random.key(0)), eqx.is_inexact_array)
    constraints = constraints_of(params)
    assert callable(constraints)
    assert admm.resolve(constraints, params) is constraints


def test_a_flax_variable_that_holds_a_constraint_is_a_branch():
    assert not admm.is_constraint(nnx.Param(Keep(3)))


def test_a_single_array_is_a_tree():
    w = jnp.arange(6.0)
    np.testing.assert_array_equal(admm.project(Keep(2), w), [0, 0, 0, 0, 4, 5])
    updates, state = admm.admm(Keep(2), 1.0, every=1).update(jnp.zeros(6), admm.admm(Keep(2), 1.0).init(w), w)
    np.testing.assert_allclose(updates, [0, -0.5, -1, -1.5, 0, 0])
    np.testing.assert_allclose(state.z, [0, 0, 0, 0, 4, 5])


def test_helpers_follow_paths():
    named = admm.constrained_by_path(CONSTRAINTS, CONSTRAINTS)
    assert named == {"first/kernel": Keep(10), "second/kernel": Grid(7)}
    weights = admm.constrained_by_path(CONSTRAINTS, PARAMS)
    assert weights["second/kernel"] is PARAMS["second"]["kernel"]
    fitted = admm.fit(CONSTRAINTS, PARAMS)
    assert fitted["first"] == CONSTRAINTS["first"]
    projected = admm.project(fitted, PARAMS)
    assert projected["first"]["bias"] is PARAMS["first"]["bias"]
    assert {path: float(value) for path, value in admm.violations(fitted, projected).items()} == dict.fromkeys(named, 0)
    assert all(float(value) > 0 for value in admm.violations(fitted, PARAMS).values())
    assert [admm.is_constraint(node) for node in (None, Keep(1), 3, {"a": Keep(1)})] == [True, True, False, False]


def test_chart_builds_members_only(key):
    fitted = admm.fit(CONSTRAINTS, PARAMS)
    projected = admm.project(fitted, PARAMS)
    theta, build = admm.chart(fitted, projected)
    chex.assert_trees_all_equal(build(theta), projected)
    noise = jax.random.normal(key, (5, 8))
    moved = build({"first": {"kernel": noise, "bias": noise[0]}, "second": {"kernel": noise[:, :2]}})
    assert all(float(value) == 0 for value in admm.violations(fitted, moved).values())
    np.testing.assert_array_equal(moved["first"]["kernel"] != 0, projected["first"]["kernel"] != 0)
    np.testing.assert_array_equal(moved["first"]["bias"], noise[0])
