"""The library's own constraints through the stages: a small CNN onto the joint set."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from modicum import admm, constraints
from modicum.admm.stages import retrain_step, start_retraining
from tests.admm import members


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
    params = jax.jit(Net().init)(jax.random.key(1), images[0])
    return params, (images, jnp.stack([images.mean((2, 3, 4)), images.max((2, 3, 4)), images.min((2, 3, 4))], axis=-1))


CONFIG = admm.CompressConfig(outer=4, inner=5, retrain=20, chunk=10, rho=30.0, retrain_learning_rate=0.01)


def joint(params):
    library = constraints.natural_library(params["params"]["Conv_1"]["kernel"], 8)
    return constraints.nest(
        constraints.Kernels(2), constraints.Patterns(library), constraints.Polarized(9), constraints.Levels(4)
    )


@pytest.mark.optimized
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


def several(params):
    """Another set on each leaf."""
    return constraints.by_path(
        {
            "Conv_0/kernel": constraints.TopK(20),
            "Conv_1/kernel": joint(params),
            "Dense_0/kernel": constraints.Levels(5),
            "Conv_1/bias": constraints.Levels(8),
        },
        params,
    )


@pytest.mark.optimized
def test_violation_is_zero_after_every_retraining_step(task):
    params, batches = task
    fitted = admm.fit(several(params), params)
    theta, build = admm.chart(fitted, admm.project(fitted, params))
    config = dataclasses.replace(CONFIG, retrain_learning_rate=0.03, retrain_decay="constant")

    @jax.jit
    def run(theta):
        def step(carry, number):
            carry, _ = retrain_step(loss_fn, build, config, carry, batches, number)
            weights = build(carry.theta)
            return carry, (admm.violations(fitted, weights), weights["params"]["Conv_1"]["kernel"])

        return jax.lax.scan(step, start_retraining(theta, config), jnp.arange(40))[1]

    violations, kernels = run(theta)
    assert len(violations) == 4
    assert all(values.shape == (40,) and not np.any(values) for values in violations.values())
    assert len({kernel.tobytes() for kernel in np.asarray(kernels)}) > 20  # it did move


def test_bfloat16_params_keep_float32_copies_and_coordinates(task):
    params, batches = task
    short = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    rules = constraints.by_path({"Conv_1/kernel": joint(params), "Dense_0/kernel": constraints.TopK(9)}, params)
    fitted = admm.fit(rules, short)

    @jax.jit
    def looked_at(short):
        exact = jax.tree.map(lambda p: p.astype(jnp.float32), short)
        projected = admm.project(fitted, short)
        theta = admm.chart(fitted, projected)[0]
        return admm.init(short, fitted, 1.0), admm.project(fitted, exact), projected, theta

    state, copies, projected, theta = looked_at(short)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.z, state.u))} == {jnp.dtype("float32")}
    copies, projected, theta = (admm.constrained_by_path(fitted, tree) for tree in (copies, projected, theta))
    for path, z in admm.constrained_by_path(fitted, state.z).items():
        assert (projected[path].dtype, theta[path].dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_array_equal(z, copies[path])
        np.testing.assert_array_equal(jnp.sign(projected[path].astype(jnp.float32)), jnp.sign(z))
    final, info = jax.jit(admm.stages(loss_fn, rules, CONFIG))(short, batches)
    assert {leaf.dtype for leaf in jax.tree.leaves(final)} == {jnp.dtype("bfloat16")}
    assert all(float(value) == 0 for value in (info.violation_projected | info.violation_retrained).values())


def test_vmap_over_seeds_rho_and_rates_compiles_once():
    traces = []
    config = admm.CompressConfig(outer=3, inner=4, retrain=4, learning_rate=0.01)

    def counted(params, batch):
        traces.append(None)
        return members.loss_fn(params, batch)

    def run(params, rho, k):
        tree = {"first": {"kernel": constraints.TopK(k), "bias": None}, "second": None}
        final, info = admm.stages(counted, tree, dataclasses.replace(config, rho=rho))(params, members.BATCHES)
        return final["first"]["kernel"], info.violation_retrained["first/kernel"]

    seeds = jax.tree.map(lambda p: jnp.stack([p, p + 0.1]), members.PARAMS)
    rhos, ks = jnp.array([2.0, 40.0]), jnp.array([4, 30])
    over = jax.vmap(jax.vmap(jax.vmap(run, (None, None, 0)), (None, 0, None)), (0, None, None))
    together = jax.jit(over)
    weights, violations = together(seeds, rhos, ks)
    once = len(traces)
    together(jax.tree.map(lambda p: p + 0.01, seeds), 2 * rhos, ks + 1)
    assert len(traces) == once
    assert together._cache_size() == 1
    assert not np.any(violations)
    one = jax.jit(run)
    for seed, i, j in np.ndindex(2, 2, 2):
        single, _ = one(jax.tree.map(lambda p, at=seed: p[at], seeds), rhos[i], ks[j])
        np.testing.assert_allclose(weights[seed, i, j], single, atol=1e-4)
        assert np.count_nonzero(weights[seed, i, j]) == ks[j]


def natural():
    return constraints.nest(constraints.Kernels(3), constraints.NaturalPatterns(3))


def test_library_patterns_connectivity_and_weights_in_one_program(task):
    """The simultaneous search of the pattern papers: each seed of a vmap extracts its own library as it trains."""
    params, batches = task
    config = dataclasses.replace(CONFIG, refit=3, learning_rate=0.03)
    rules = constraints.by_path({"Conv_1/kernel": natural()}, params)
    seeds = jax.tree.map(lambda p: jnp.stack([p, p[..., ::-1] + 0.02]), params)

    def run(config):
        return jax.jit(jax.vmap(admm.stages(loss_fn, rules, config), (0, None)))(seeds, batches)

    (final, info), (_, frozen) = run(config), run(dataclasses.replace(config, refit=0))
    tables = [
        np.asarray(each.constraints["params"]["Conv_1"]["kernel"].members[1].table) != 0 for each in (info, frozen)
    ]
    assert tables[0].shape == (2, 3, 9)
    assert not np.array_equal(tables[0][0], tables[0][1])
    assert not np.array_equal(*tables)  # the library followed the weights
    np.testing.assert_array_equal(info.violation_retrained["params/Conv_1/kernel"], 0)
    for seed, table in enumerate(tables[0]):
        kernels = np.asarray(final["params"]["Conv_1"]["kernel"])[seed].reshape(9, -1).T
        assert all(np.any(~np.any((kernel != 0) & ~table, axis=1)) for kernel in kernels)


def test_refitted_library_is_found_again(task, tmp_path):
    params, batches = task
    config = dataclasses.replace(CONFIG, refit=3)
    rules = constraints.by_path({"Conv_1/kernel": natural()}, params)

    def interrupt(stage, done, total, metrics):
        if (stage, done) == ("admm", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.compress(loss_fn, params, batches, rules, config, folder=tmp_path, progress=interrupt)
    resumed = admm.compress(loss_fn, params, batches, rules, config, folder=tmp_path)
    result = admm.compress(loss_fn, params, batches, rules, config)
    assert resumed.report == result.report
    assert (result.report.violation, result.report.leaves[0].round_trip) == (0, True)


def test_gradual_pruning_of_the_joint_set(task):
    params, batches = task
    result = admm.gradual(loss_fn, params, batches, several(params), CONFIG)
    assert result.report.violation == 0
    assert [leaf.kept for leaf in result.report.leaves if "Conv_0" in leaf.path] == [20]
    assert result.report.steps == CONFIG.total_steps


def test_two_splits_beside_blocks_and_channels(task):
    """PatDNN's two copies of a layer, patterns and connectivity, while other leaves follow other sets."""
    params, batches = task
    rules = constraints.by_path(
        {
            "Conv_0/kernel": constraints.Channels(3),
            "Conv_1/kernel": constraints.split(constraints.Kernels(2), constraints.Patterns(constraints.MEST_8)),
            "Dense_0/kernel": constraints.Unified((2, 1), 0.5),
        },
        params,
    )
    final, info = jax.jit(admm.stages(loss_fn, rules, dataclasses.replace(CONFIG, outer=10)))(params, batches)
    assert len(admm.init(params, info.constraints, 1.0).z["params"]["Conv_1"]["kernel"]) == 2
    assert all(float(value) == 0 for value in (info.violation_projected | info.violation_retrained).values())
    primal = info.admm.primal["params/Conv_1/kernel"]
    assert float(primal[-1]) < 0.5 * float(primal[0])
    kernels = np.asarray(final["params"]["Conv_1"]["kernel"]).reshape(9, 4, 6)
    assert np.count_nonzero(np.any(kernels, axis=0), axis=0).max() <= 2
    assert np.count_nonzero(kernels, axis=0).max() <= 4
    assert np.count_nonzero(np.any(np.asarray(final["params"]["Conv_0"]["kernel"]), axis=(0, 1, 2))) <= 3
