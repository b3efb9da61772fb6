"""Constraints that follow the weights at first, and the stop rule: references, vmap, resume."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import admm
from tests.admm.members import BATCHES, CONSTRAINTS, PARAMS, Grid, Keep, loss_fn

CONFIG = admm.CompressConfig(outer=4, inner=5, retrain=12, chunk=6, rho=60.0, learning_rate=0.01)


@pytest.mark.parametrize("refit", [0, 2, 9])
def test_refit_against_numpy(refit):
    rng = np.random.default_rng(2)
    w, center = rng.normal(size=9), 2 * rng.normal(size=9)
    config = admm.CompressConfig(
        outer=5, inner=3, retrain=0, refit=refit, rho=2.0, optimizer=optax.sgd, learning_rate=0.1, tolerance=0.0
    )
    params = {"w": jnp.asarray(w, jnp.float32), "free": jnp.ones(1)}
    constraints = {"w": Grid(3), "free": None}
    run = admm.stages(lambda params, batch: jnp.sum((params["w"] - batch) ** 2) / 2, constraints, config)
    got, info = jax.jit(run)(params, jnp.asarray(center[None], jnp.float32))

    step, rho, u = np.abs(w).max() / 3, 2.0, np.zeros(9)
    z = np.clip(np.round(w / step), -3, 3) * step
    for outer in range(5):
        for _ in range(3):
            t = 0.1 * rho
            w = (w - 0.1 * (w - center) + t * (z - u)) / (1 + t)
        if outer < refit:
            step = np.abs(w + u).max() / 3
        z = np.clip(np.round((w + u) / step), -3, 3) * step
        u, rho = (u + w - z) / 1.3, rho * 1.3
    np.testing.assert_allclose(info.constraints["w"].step, step, rtol=1e-5)
    np.testing.assert_allclose(got["w"], np.clip(np.round(w / step), -3, 3) * step, atol=1e-5)
    np.testing.assert_allclose(info.admm.primal["w"][-1], np.linalg.norm(w - z) / np.linalg.norm(w), atol=1e-5)
    assert float(info.violation_retrained["w"]) == 0


@pytest.fixture(scope="module")
def free_running():
    return admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, dataclasses.replace(CONFIG, refit=2))


@pytest.fixture(scope="module")
def stopping(free_running):
    """Refit in two iterations, and a stop that falls on the third of four."""
    largest = np.max([leaf.primal for leaf in free_running.report.leaves], axis=0)
    assert np.all(np.diff(largest) < 0)
    return dataclasses.replace(CONFIG, refit=2, stop=float(largest[1] + largest[2]) / 2)


@pytest.fixture(scope="module")
def stopped(stopping):
    return admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, stopping)


def test_steps_saved_go_to_retraining(free_running, stopping, stopped):
    report = stopped.report
    assert (report.stopped, free_running.report.stopped) == (3, None)
    assert (len(report.admm_losses), len(report.retrain_losses)) == (15, 17)
    assert report.steps == free_running.report.steps == CONFIG.total_steps
    assert report.admm_losses == free_running.report.admm_losses[:15]
    assert report.leaves[0].primal == free_running.report.leaves[0].primal[:3]
    assert str(report).splitlines()[-1].startswith("ADMM ended after 3 of 4 outer iterations: every residual lay below")
    # retraining begins on the batch after the last one that ADMM saw
    seen = []

    def batch_fn(step):
        jax.debug.callback(lambda step: seen.append(int(step)), step, ordered=True)
        return jax.tree.map(lambda leaf: leaf[step % 6], BATCHES)

    admm.compress(loss_fn, PARAMS, batch_fn, CONSTRAINTS, stopping)
    jax.effects_barrier()
    assert seen == list(range(32))


@pytest.mark.parametrize("chunk", [("admm", 1), ("admm", 3), ("retrain", 6)])
def test_resume_is_bit_equal(chunk, stopping, stopped, tmp_path):
    def interrupt(stage, done, total, metrics):
        if (stage, done) == chunk:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, stopping, folder=tmp_path, progress=interrupt)
    resumed = admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, stopping, folder=tmp_path)
    chex.assert_trees_all_equal(resumed.params, stopped.params)
    assert resumed.report == stopped.report
    assert float(resumed.constraints["second"]["kernel"].step) == float(stopped.constraints["second"]["kernel"].step)


def test_pure_stages_refit_and_stop_for_each_seed(stopping, stopped):
    seeds = [PARAMS, jax.tree.map(lambda p: p + 1.0, PARAMS), jax.tree.map(lambda p: 0.5 * p, PARAMS)]
    rhos = jnp.array([60.0, 200.0, 60.0])
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)

    def run(params, rho):
        return admm.stages(loss_fn, CONSTRAINTS, dataclasses.replace(stopping, rho=rho))(params, BATCHES)

    _, info = jax.jit(jax.vmap(run))(together, rhos)
    one = jax.jit(run)
    for index, params in enumerate(seeds):
        _, alone = one(params, rhos[index])
        chex.assert_trees_all_close(jax.tree.map(lambda a, i=index: a[i], info.projected), alone.projected, atol=1e-4)
        steps = (each.constraints["second"]["kernel"].step for each in (info, alone))
        np.testing.assert_allclose(next(steps)[index], next(steps), rtol=1e-4)
        made = int(alone.outer)
        assert made == int(info.outer[index])
        np.testing.assert_array_equal(np.isnan(info.admm.losses[index]).all(axis=1), np.arange(4) >= made)
    assert len(set(np.asarray(info.outer).tolist())) > 1
    assert all(np.all(value == 0) for value in info.violation_retrained.values())
    # the driver, which really ends the stage, lands at the same point
    assert int(info.outer[0]) == stopped.report.stopped
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[0], info.projected), stopped.projected, atol=1e-4)


def test_refit_stays_a_branch_under_vmap():
    together = jax.tree.map(lambda p: jnp.stack([p, p + 1.0]), PARAMS)

    def text(**changes):
        run = admm.stages(loss_fn, CONSTRAINTS, dataclasses.replace(CONFIG, **changes))
        return str(jax.make_jaxpr(jax.vmap(run, in_axes=(0, None)))(together, BATCHES))

    assert "cond[" in text(refit=2)
    assert "cond[" not in text(refit=0)


def test_a_fit_that_cannot_be_traced_is_named():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Fixed(Keep):
        def fit(self, w):
            return Fixed(int(jnp.sum(jnp.abs(w) > 0.5)))

    constraints = {"first": {"kernel": Fixed(3), "bias": None}, "second": None}
    with pytest.raises(ValueError, match=r"refit must be 0 where a fit cannot be traced .* as that of 'first/kernel'"):
        admm.compress(loss_fn, PARAMS, BATCHES, constraints, dataclasses.replace(CONFIG, refit=1))
