"""Gradual pruning: against a NumPy reference, equal steps, one program, resume."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import admm
from tests.admm.members import BATCHES, CONSTRAINTS, PARAMS, Keep, loss_fn

CONFIG = admm.CompressConfig(outer=3, inner=4, retrain=6, chunk=4, learning_rate=0.01)


def numpy_top(v, k):
    kept = np.zeros(v.size, bool)
    kept[np.argsort(-np.abs(v), kind="stable")[:k]] = True
    return np.where(kept, v, 0), kept


def test_equals_a_numpy_reference():
    rng = np.random.default_rng(4)
    w, centers = rng.normal(size=20), rng.normal(size=(7, 20))
    config = dataclasses.replace(
        CONFIG, outer=5, optimizer=optax.sgd, learning_rate=0.1, retrain_learning_rate=0.05, retrain_decay="constant"
    )
    seen = []
    result = admm.gradual(
        lambda params, batch: jnp.sum((params["w"] - batch) ** 2) / 2 + jnp.sum(params["free"] ** 2),
        {"w": jnp.asarray(w, jnp.float32), "free": jnp.ones(2)},
        jnp.asarray(centers, jnp.float32),
        {"w": Keep(3), "free": None},
        config,
        progress=lambda *chunk: seen.append(chunk[:3]),
    )
    counts, step = [], 0
    for piece in range(5):
        counts.append(math.ceil(3 + (1 - (piece + 1) / 5) ** 3 * 17))
        w, kept = numpy_top(w, counts[-1])
        for _ in range(4):
            w = np.where(kept, w - 0.1 * (w - centers[step % 7]), 0)
            step += 1
    assert counts == [12, 7, 5, 4, 3]
    np.testing.assert_allclose(result.projected["w"], w, atol=1e-5)
    for _ in range(6):
        w = np.where(kept, w - 0.05 * (w - centers[step % 7]), 0)
        step += 1
    np.testing.assert_allclose(result.params["w"], w, atol=1e-5)
    np.testing.assert_allclose(result.params["free"], 0.8**20 * 0.9**6, rtol=1e-5)
    assert seen == [*(("gradual", piece + 1, 5) for piece in range(5)), ("retrain", 4, 6), ("retrain", 6, 6)]
    assert result.report.steps == config.total_steps == 26
    assert result.report.rho == result.report.leaves[0].primal == ()


def test_one_program_for_all_pieces():
    traces = []

    def counted(params, batch):
        traces.append(None)
        return loss_fn(params, batch)

    def run(outer):
        traces.clear()
        admm.gradual(counted, PARAMS, BATCHES, CONSTRAINTS, dataclasses.replace(CONFIG, outer=outer, retrain=0))
        return len(traces)

    assert run(5) == run(1) > 0


def test_sets_without_relaxed_are_used_as_they_are():
    result = admm.gradual(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG)
    assert result.report.violation == 0
    assert result.report.leaves[0].kept <= 10
    fitted = admm.fit(CONSTRAINTS, PARAMS)["second"]["kernel"]
    assert float(result.constraints["second"]["kernel"].step) == float(fitted.step)


@pytest.mark.parametrize("chunk", [("gradual", 1), ("gradual", 3), ("retrain", 4)])
def test_resume_is_bit_equal(chunk, tmp_path):
    def interrupt(stage, done, total, metrics):
        if (stage, done) == chunk:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.gradual(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path, progress=interrupt)
    resumed = admm.gradual(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path)
    result = admm.gradual(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG)
    chex.assert_trees_all_equal(resumed.params, result.params)
    assert resumed.report == result.report
    with pytest.raises(ValueError, match="must hold a run of the same method, got another"):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path)


def test_nan_loss_is_named():
    inputs, targets = (np.tile(leaf, (3, 1, 1)) for leaf in BATCHES)
    inputs[5, 0, 0] = np.nan
    with pytest.raises(ValueError, match="loss must be finite, got nan at step 5 of gradual pruning"):
        admm.gradual(loss_fn, PARAMS, (inputs, targets), CONSTRAINTS, CONFIG)


def test_relaxed_moves_counts_only():
    relaxed = admm.relaxed(CONSTRAINTS, PARAMS, 0.5)
    assert int(relaxed["first"]["kernel"].k) == 25
    assert relaxed["second"] == CONSTRAINTS["second"]
    assert jax.tree.structure(relaxed) == jax.tree.structure(CONSTRAINTS)
