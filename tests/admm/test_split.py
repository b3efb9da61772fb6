"""Consensus over the parts of a split constraint: closed forms, known minima, PatDNN's two splits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import admm
from tests.admm.members import BATCHES, PARAMS, Box, Columns, Keep, Plane, Split, loss_fn

BOTH = {"w": Split((Box(-1.0, 1.0), Plane(0.5))), "free": None}


def test_one_copy_per_part_and_plain_arrays_elsewhere(key):
    params = {"a": jax.random.normal(key, (4, 3)), "b": jnp.ones(2), "c": jnp.ones(5)}
    constraints = {"a": Split((Keep(3), Columns(2))), "b": Keep(1), "c": None}
    state = admm.init(params, constraints, 1.0)
    assert [z.shape for z in state.z["a"]] == [u.shape for u in state.u["a"]] == [(4, 3)] * 2
    assert state.z["b"].shape == (2,)
    assert len(jax.tree.leaves((state.z, state.u))) == 6
    assert [np.count_nonzero(z) for z in state.z["a"]] == [3, 6]
    assert admm.parts(constraints["a"]) == (Keep(3), Columns(2))
    assert admm.parts(Keep(1)) == (Keep(1),)


def test_steps_against_numpy():
    rng = np.random.default_rng(0)
    w, update, z1, z2, u1, u2 = rng.normal(size=(6, 5))
    single = [jnp.asarray(a, jnp.float32) for a in (w, update, z1, z2, u1, u2)]
    params, updates = {"w": single[0], "free": jnp.ones(1)}, {"w": single[1], "free": jnp.ones(1)}
    state = admm.AdmmState(
        {"w": (single[2], single[3]), "free": None},
        {"w": (single[4], single[5]), "free": None},
        jnp.float32(0.7),
        jnp.int32(0),
    )
    t = 0.7 * 0.3
    moved = params["w"] + admm.pull(updates, state, params, BOTH, 0.3)["w"]
    np.testing.assert_allclose(moved, (w + update + t * (z1 - u1 + z2 - u2)) / (1 + 2 * t), atol=1e-6)
    penalized = admm.penalize(updates, state, params, BOTH)["w"]
    np.testing.assert_allclose(penalized, update + 0.7 * (w - z1 + u1 + w - z2 + u2), atol=1e-6)
    far = max(np.linalg.norm(w - z1), np.linalg.norm(w - z2)) / np.linalg.norm(w)
    np.testing.assert_allclose(admm.residual(state, params, BOTH), far, rtol=1e-6)
    after = admm.dual_update(state, params, BOTH, 1.3)
    first = np.clip(w + u1, -1, 1)
    second = w + u2 + (0.5 - np.sum(w + u2)) / 5
    np.testing.assert_allclose(after.z["w"], [first, second], atol=1e-6)
    np.testing.assert_allclose(after.u["w"], [(w + u1 - first) / 1.3, (w + u2 - second) / 1.3], atol=1e-6)


def onto_both(w, total=0.5):
    """Projection onto the box cut by the plane: the shift is found by bisection."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(w + middle, -1, 1).sum() < total else (low, middle)
    return np.clip(w + low, -1, 1)


@pytest.mark.parametrize("form", ["prox", "penalty"])
def test_converges_to_the_minimum_over_the_intersection(form):
    rng = np.random.default_rng(1)
    root, center = rng.normal(size=(6, 6)), 1.3 * rng.normal(size=6)
    matrix = root @ root.T / 6 + 0.1 * np.eye(6)
    solution = np.zeros(6)
    for _ in range(5000):
        solution = onto_both(solution - 0.1 * matrix @ (solution - center))
    pulled = admm.admm(BOTH, 1.0, 1.0, every=20, form=form, learning_rate=0.1)
    sgd = optax.sgd(0.1)
    optimizer = optax.chain(sgd, pulled) if form == "prox" else optax.chain(pulled, sgd)
    a, c = jnp.asarray(matrix, jnp.float32), jnp.asarray(center, jnp.float32)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = {"w": a @ (params["w"] - c), "free": jnp.zeros(1)}
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=4000)[0][0]

    found = run({"w": jnp.zeros(6), "free": jnp.zeros(1)})["w"]
    np.testing.assert_allclose(found, solution, atol=5e-4)
    assert np.any(np.abs(solution) == 1)
    # neither set alone has that minimum, nor do the projections of the free one
    assert np.max(np.abs(onto_both(center) - solution)) > 0.05


def test_a_split_runs_through_all_stages_and_resumes(tmp_path):
    constraints = {"first": {"kernel": Split((Keep(12), Columns(2))), "bias": None}, "second": {"kernel": Keep(6)}}
    config = admm.CompressConfig(outer=6, inner=5, retrain=12, chunk=5, rho=20.0, learning_rate=0.01)

    def interrupt(stage, done, total, metrics):
        if (stage, done) == ("admm", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.compress(loss_fn, PARAMS, BATCHES, constraints, config, folder=tmp_path, progress=interrupt)
    resumed = admm.compress(loss_fn, PARAMS, BATCHES, constraints, config, folder=tmp_path)
    result = admm.compress(loss_fn, PARAMS, BATCHES, constraints, config)
    chex.assert_trees_all_equal(resumed.params, result.params)
    assert resumed.report == result.report
    kernel = np.asarray(result.params["first"]["kernel"])
    assert np.count_nonzero(kernel) <= 12
    assert np.count_nonzero(kernel, axis=0).max() <= 2
    assert result.report.violation == 0
    assert result.report.leaves[0].primal[-1] < 0.5 * result.report.leaves[0].primal[0]
