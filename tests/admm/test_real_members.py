"""The library's own constraints through the stages: a small CNN onto the joint set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from modicum import admm, constraints


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3))(x))
        x = linen.relu(linen.Conv(6, (3, 3))(x))
        return linen.Dense(3)(x.mean((1, 2)))


def loss_fn(params, batch):
    return jnp.mean((Net().apply(params, batch[0]) - batch[1]) ** 2)


@pytest.fixture(scope="module")
def task():
    images = jax.random.normal(jax.random.key(0), (4, 8, 5, 5, 1))
    params = Net().init(jax.random.key(1), images[0])
    return params, (images, jnp.stack([images.mean((2, 3, 4)), images.max((2, 3, 4)), images.min((2, 3, 4))], axis=-1))


CONFIG = admm.CompressConfig(outer=4, inner=5, retrain=20, chunk=10, rho=30.0, retrain_learning_rate=0.01)


def joint(params):
    library = constraints.natural_library(params["params"]["Conv_1"]["kernel"], 8)
    return constraints.nest(
        constraints.Kernels(2), constraints.Patterns(library), constraints.Polarized(9), constraints.Levels(4)
    )


def test_joint_set_holds_exactly(task):
    params, batches = task
    rules = constraints.by_path({"Conv_1/kernel": joint(params), "Dense_0/kernel": constraints.Levels(6)}, params)
    result = admm.compress(loss_fn, params, batches, rules, CONFIG)
    path = "params/Conv_1/kernel"
    weight = np.asarray(result.params["params"]["Conv_1"]["kernel"])
    (leaf,) = [leaf for leaf in result.report.leaves if leaf.path == path]
    assert result.report.violation == 0
    assert leaf.round_trip
    assert leaf.packed_bytes < leaf.dense_bytes / 4
    kernels = weight.reshape(9, 4, 6)
    assert np.count_nonzero(np.any(kernels, axis=0), axis=0).max() <= 2
    assert np.count_nonzero(kernels, axis=0).max() <= 4
    assert not np.any(np.any(kernels > 0, axis=0) & np.any(kernels < 0, axis=0))
    assert len(np.unique(np.abs(weight))) <= 8
    # a second look, without the fitted scale: the weights themselves say that they lie on a grid
    assert float(joint(params).violation(result.params["params"]["Conv_1"]["kernel"])) == 0
    # retraining improved on the projection it started from
    assert np.mean(result.report.retrain_losses[-4:]) < np.mean(result.report.retrain_losses[:4])


def test_vmap_over_rates_of_the_joint_set(task):
    params, batches = task
    nested = joint(params).members[1:]

    def run(k):
        rules = constraints.by_path({"Conv_1/kernel": constraints.nest(constraints.Kernels(k), *nested)}, params)
        final, info = admm.stages(loss_fn, rules, CONFIG)(params, batches)
        return final["params"]["Conv_1"]["kernel"], info.violation_retrained["params/Conv_1/kernel"]

    weights, violations = jax.jit(jax.vmap(run))(jnp.array([1, 3]))
    np.testing.assert_array_equal(violations, 0)
    for weight, k in zip(np.asarray(weights), (1, 3), strict=True):
        assert np.count_nonzero(np.any(weight.reshape(9, 4, 6), axis=0), axis=0).max() == k
    single, _ = jax.jit(run)(3)
    np.testing.assert_allclose(weights[1], single, atol=1e-3)


def test_transformation_with_by_path_as_a_function(task):
    params, _ = task
    rules = constraints.by_path({"kernel": constraints.TopK(5)})
    optimizer = admm.admm(rules, 1.0, every=1)
    updates, state = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert len(jax.tree.leaves(state.z)) == 3
    assert all(np.count_nonzero(z) == 5 for z in jax.tree.leaves(state.z))
    assert not np.any(updates["params"]["Conv_0"]["bias"])


def test_a_shape_that_does_not_fit_is_named(task):
    params, batches = task
    rules = constraints.by_path({"Conv_1/kernel": constraints.Kernels(9)})
    with pytest.raises(ValueError, match="params/Conv_1/kernel"):
        admm.compress(loss_fn, params, batches, rules, CONFIG)
