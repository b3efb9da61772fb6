"""The pure stages: against a NumPy reference, under jit, vmap and grad, and what the compiled program holds."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import admm
from tests.admm.members import BATCHES, CONSTRAINTS, PARAMS, Box, Grid, Keep, loss_fn

SHORT = admm.CompressConfig(outer=4, inner=5, retrain=12, rho=20.0, learning_rate=0.01, retrain_learning_rate=0.01)


def quadratic(params, batch):
    return jnp.sum((params["w"] - batch) ** 2) / 2 + jnp.sum(params["free"] ** 2)


def numpy_top(v, k):
    kept = np.zeros(v.size, bool)
    kept[np.argsort(-np.abs(v), kind="stable")[:k]] = True
    return np.where(kept, v, 0), kept


def numpy_run(w, centers, k, config):
    """ADMM by gradient descent, hard projection and masked retraining in float64."""
    z, _ = numpy_top(w, k)
    u, rho, step, rhos, primal, dual = np.zeros_like(w), config.rho, 0, [], [], []
    for _ in range(config.outer):
        for _ in range(config.inner):
            gradient = w - centers[step % len(centers)]
            if config.form == "penalty":
                w = w - config.learning_rate * (gradient + rho * (w - z + u))
            else:
                t = config.learning_rate * rho
                w = (w - config.learning_rate * gradient + t * (z - u)) / (1 + t)
            step += 1
        old = z
        z, _ = numpy_top(w + u, k)
        rhos.append(rho)
        primal.append(np.linalg.norm(w - z) / np.linalg.norm(w))
        dual.append(np.linalg.norm(z - old) / np.linalg.norm(z))
        growth = 1 if primal[-1] < config.tolerance else config.growth
        u, rho = (u + w - z) / growth, rho * growth
    w, kept = numpy_top(w, k)
    projected = w
    for _ in range(config.retrain):
        w = np.where(kept, w - config.retrain_learning_rate * (w - centers[step % len(centers)]), 0)
        step += 1
    return projected, w, rhos, primal, dual


@pytest.mark.parametrize("form", ["prox", "penalty"])
def test_equals_a_numpy_reference(form):
    rng = np.random.default_rng(3)
    start, centers = rng.normal(size=9), rng.normal(size=(7, 9))
    config = admm.CompressConfig(
        outer=6,
        inner=4,
        retrain=5,
        rho=2.0,
        form=form,
        optimizer=optax.sgd,
        learning_rate=0.1,
        retrain_learning_rate=0.05,
        retrain_decay="constant",
        tolerance=0.05,
    )
    projected, final, rhos, primal, dual = numpy_run(start, centers, 3, config)
    params = {"w": jnp.asarray(start, jnp.float32), "free": jnp.ones(2)}
    run = admm.stages(quadratic, {"w": Keep(3), "free": None}, config)
    got, info = jax.jit(run)(params, jnp.asarray(centers, jnp.float32))
    np.testing.assert_allclose(info.projected["w"], projected, atol=2e-5)
    np.testing.assert_allclose(got["w"], final, atol=2e-5)
    np.testing.assert_allclose(info.admm.rho, rhos, rtol=1e-5)
    np.testing.assert_allclose(info.admm.primal["w"], primal, atol=2e-5)
    np.testing.assert_allclose(info.admm.dual["w"], dual, atol=2e-5)
    # the free leaf took every step of plain gradient descent
    np.testing.assert_allclose(got["free"], 0.8**24 * 0.9**5, rtol=1e-5)
    assert info.admm.losses.shape == (6, 4)
    assert info.retrain_losses.shape == (5,)


def test_weights_end_in_their_sets_and_the_loss_falls():
    config = dataclasses.replace(SHORT, retrain=100)
    params, info = jax.jit(admm.stages(loss_fn, CONSTRAINTS, config))(PARAMS, BATCHES)
    assert {path: float(value) for path, value in info.violation_projected.items()} == {
        "first/kernel": 0.0,
        "second/kernel": 0.0,
    }
    assert all(float(value) == 0 for value in info.violation_retrained.values())
    assert np.count_nonzero(params["first"]["kernel"]) <= 10
    step = np.float32(info.constraints["second"]["kernel"].step)
    levels = np.asarray(params["second"]["kernel"]) / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-6)
    assert np.abs(levels).max() <= 7 + 1e-6
    assert not np.array_equal(params["first"]["bias"], PARAMS["first"]["bias"])
    everything = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), BATCHES)
    assert float(loss_fn(params, everything)) < 0.9 * float(loss_fn(info.projected, everything))


def test_scales_are_fitted_once_for_the_whole_run():
    seen = []

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Watched(Grid):
        def fit(self, w):
            seen.append(self.step)
            return self if self.step is not None else Watched(self.levels, Grid(self.levels).fit(w).step)

    constraints = {"first": None, "second": {"kernel": Watched(7)}}
    _, info = admm.stages(loss_fn, constraints, SHORT)(PARAMS, BATCHES)
    assert [step for step in seen if step is None] == [None]
    assert info.constraints["second"]["kernel"].step is not None


def stacked(count):
    keys = jax.random.split(jax.random.key(5), count)
    noise = [jax.tree.map(lambda p, k=k: p + 0.1 * jax.random.normal(k, p.shape), PARAMS) for k in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *noise), noise


def test_vmap_over_seeds_equals_a_loop():
    together, single = stacked(3)
    run = admm.stages(loss_fn, CONSTRAINTS, SHORT)
    batched, info = jax.jit(jax.vmap(run, in_axes=(0, None)))(together, BATCHES)
    one = jax.jit(run)
    for index, params in enumerate(single):
        expected, expected_info = one(params, BATCHES)
        chex.assert_trees_all_close(jax.tree.map(lambda a, i=index: a[i], batched), expected, atol=1e-4)
        np.testing.assert_allclose(
            info.admm.primal["first/kernel"][index], expected_info.admm.primal["first/kernel"], atol=1e-4
        )
    assert all(np.all(value == 0) for value in info.violation_retrained.values())


def test_vmap_over_rho_and_rates_equals_a_loop():
    def run(rho, k):
        constraints = {"first": {"kernel": Keep(k), "bias": None}, "second": None}
        return admm.stages(loss_fn, constraints, dataclasses.replace(SHORT, rho=rho))(PARAMS, BATCHES)[0]

    rhos, ks = jnp.array([0.5, 20.0]), jnp.array([4, 25])
    both = jax.jit(jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None)))(rhos, ks)
    one = jax.jit(run)
    for i in range(2):
        for j in range(2):
            expected = one(rhos[i], ks[j])
            chex.assert_trees_all_close(jax.tree.map(lambda a, at=(i, j): a[at], both), expected, atol=1e-4)
            assert np.count_nonzero(both["first"]["kernel"][i, j]) <= int(ks[j])
    assert not np.array_equal(both["first"]["kernel"][0, 1], both["first"]["kernel"][1, 1])


def scans(jaxpr):
    """Every scan body of a program, outermost first."""
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                if equation.primitive.name == "scan":
                    yield inner
                yield from scans(inner)


def test_batched_state_keeps_projections_out_of_the_steps():
    together, _ = stacked(2)
    run = jax.vmap(admm.stages(loss_fn, CONSTRAINTS, SHORT), in_axes=(0, None))
    bodies = list(scans(jax.make_jaxpr(run)(together, BATCHES).jaxpr))
    steps = [body for body in bodies if not list(scans(body)) and "tanh" in str(body)]
    assert len(steps) == 2  # ADMM and retraining
    assert any("sort" in str(body) for body in bodies if body not in steps)
    assert not any("sort" in str(body) for body in steps)


def test_compiles_once():
    traces = []

    def counted(params, batch):
        traces.append(None)
        return loss_fn(params, batch)

    run = jax.jit(jax.vmap(admm.stages(counted, CONSTRAINTS, SHORT), in_axes=(0, None)))
    together, _ = stacked(2)
    run(together, BATCHES)
    first = len(traces)
    run(jax.tree.map(lambda p: p + 0.01, together), jax.tree.map(lambda x: 2 * x, BATCHES))
    assert len(traces) == first > 0
    assert run._cache_size() == 1


def test_gradient_through_all_stages_against_finite_differences():
    config = admm.CompressConfig(
        outer=3,
        inner=4,
        retrain=4,
        optimizer=optax.sgd,
        learning_rate=0.1,
        retrain_learning_rate=0.01,
        growth=1.0,
        tolerance=0.0,
    )
    start = {"w": jnp.array([2.0, 0.2, -0.3]), "free": jnp.ones(1)}
    centers = jnp.array([[1.6, 0.6, -0.9]])

    def outcome(rho):
        run = admm.stages(quadratic, {"w": Box(-0.5, 0.5), "free": None}, dataclasses.replace(config, rho=rho))
        params, info = run(start, centers)
        return jnp.sum(info.admm.losses) + jnp.sum(params["w"] ** 2)

    slope = jax.jit(jax.grad(outcome))(0.7)
    numeric = (outcome(0.71) - outcome(0.69)) / 0.02
    assert abs(float(slope)) > 0.05
    np.testing.assert_allclose(slope, numeric, rtol=2e-2)


def test_batches_as_a_function_equal_batches_as_arrays():
    def batch_fn(step):
        return jax.tree.map(lambda leaf: leaf[step % 6], BATCHES)

    run = jax.jit(admm.stages(loss_fn, CONSTRAINTS, SHORT), static_argnums=1)
    arrays = jax.jit(admm.stages(loss_fn, CONSTRAINTS, SHORT))
    chex.assert_trees_all_close(run(PARAMS, batch_fn)[0], arrays(PARAMS, BATCHES)[0], atol=1e-5)


def test_batch_at():
    tree = {"x": np.arange(6).reshape(3, 2), "y": np.arange(3)}
    chex.assert_trees_all_equal(admm.batch_at(tree, 4), {"x": jnp.array([2, 3]), "y": jnp.array(1)})
    chex.assert_trees_all_equal(jax.jit(admm.batch_at)(tree, 5)["y"], jnp.array(2))
    assert admm.batch_at(lambda step: step + 1, 4) == 5
    for bad in ({"x": jnp.ones((3, 2)), "y": jnp.ones(2)}, jnp.ones(()), jnp.ones((0, 2)), {}):
        with pytest.raises(ValueError, match="batches must share one leading axis of at least one step"):
            admm.batch_at(bad, 0)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs,
        optax.adamw,
        lambda rate: optax.polyak_sgd(max_learning_rate=0.01),
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9)),
        lambda rate: optax.MultiSteps(optax.adam(rate), 2),
    ],
    ids=["lbfgs", "adamw", "polyak", "clipped", "accumulated"],
)
def test_any_optimizer(optimizer):
    config = dataclasses.replace(SHORT, optimizer=optimizer, learning_rate=0.01, outer=2, retrain=6)
    params, info = jax.jit(admm.stages(loss_fn, CONSTRAINTS, config))(PARAMS, BATCHES)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    assert not np.array_equal(params["first"]["bias"], PARAMS["first"]["bias"])
    assert all(float(value) == 0 for value in info.violation_retrained.values())


def test_bfloat16_params_stay_bfloat16():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    constraints = {"first": {"kernel": Keep(10), "bias": None}, "second": None}
    final, info = jax.jit(admm.stages(loss_fn, constraints, SHORT))(params, BATCHES)
    assert final["first"]["kernel"].dtype == jnp.bfloat16
    assert final["first"]["bias"].dtype == jnp.bfloat16
    assert float(info.violation_retrained["first/kernel"]) == 0


def test_schedules_of_each_stage_start_at_zero():
    config = dataclasses.replace(
        SHORT,
        optimizer=optax.sgd,
        learning_rate=optax.piecewise_constant_schedule(0.0, {}),
        retrain_learning_rate=lambda step: jnp.where(step == 0, 0.1, 0.0),
    )
    params = {"w": jnp.arange(1.0, 4.0), "free": jnp.ones(1)}
    final, info = admm.stages(quadratic, {"w": Keep(2), "free": None}, config)(params, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(info.projected["w"], [0, 2, 3])  # rate 0: neither gradient nor pull
    np.testing.assert_allclose(final["w"], [0, 1.8, 2.7], rtol=1e-6)
