"""Splits, sparse uploads and rounds against NumPy; FedAvg of one local step is plain gradient descent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.constraints import TopK
from modicum.core import leaves_by_path
from modicum.federated import learning, partition, upload

LABELS = np.repeat(np.arange(10), 60)


def test_iid():
    split = partition.iid(0, 103, 4)
    joined = np.concatenate(split)
    assert [share.size for share in split] == [25] * 4
    assert len(np.unique(joined)) == 100
    np.testing.assert_array_equal(split[1], partition.iid(0, 103, 4)[1])
    with pytest.raises(ValueError, match="clients must be a whole number of at least 1 and at most 3"):
        partition.iid(0, 3, 4)


def test_shards_have_few_classes():
    split = partition.shards(1, LABELS, 10)
    assert {share.size for share in split} == {60}
    assert len(np.unique(np.concatenate(split))) == 600
    assert max(len(np.unique(LABELS[share])) for share in split) <= 2
    assert np.mean([len(np.unique(LABELS[share])) for share in partition.iid(0, 600, 10)]) > 9


def test_dirichlet_is_uneven_where_the_concentration_is_small():
    def skew(concentration):
        split = partition.dirichlet(0, LABELS, 5, concentration)
        assert sorted(np.concatenate(split).tolist()) == list(range(600))
        counts = np.array([np.bincount(LABELS[share], minlength=10) for share in split])
        return (counts.max(axis=0) / 60).mean()

    assert skew(0.1) > 0.6 > 0.3 > skew(1000.0)
    with pytest.raises(ValueError, match="least must be a number of examples that 5 clients can have"):
        partition.dirichlet(0, LABELS, 5, 0.01, least=120)


@given(st.sampled_from([1, 7, 60]), st.floats(0.01, 1), st.integers(0, 2**32), st.booleans())
def test_largest_entries(size, fraction, seed, ties):
    flat = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    flat = np.rint(flat).astype(np.float32) if ties else flat
    kept = upload.kept_of(size, fraction)
    expected = np.zeros(size, bool)
    expected[np.argsort(-np.abs(flat), kind="stable")[:kept]] = True
    np.testing.assert_array_equal(upload.largest(jnp.asarray(flat), kept), expected)


def test_error_feedback_loses_nothing(key):
    transformation = upload.topk_upload(0.3)
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros(8)}
    state, sent, made = transformation.init(params), jax.tree.map(jnp.zeros_like, params), []
    for part in jax.random.split(key, 4):
        made.append(optax.tree.random_like(part, params, sampler=jax.random.normal))
        out, state = transformation.update(made[-1], state)
        sizes = [int(jnp.count_nonzero(leaf)) for leaf in jax.tree.leaves(out)]
        assert sum(sizes) == 6
        sent = optax.tree.add(sent, out)
    total = jax.tree.map(lambda *leaves: sum(leaves), *made)
    jax.tree.map(
        lambda all_, sent, left: np.testing.assert_allclose(all_, sent + left, atol=1e-5), total, sent, state.residual
    )
    with pytest.raises(ValueError, match="fraction must be above 0"):
        upload.topk_upload(0.0)


def test_common_support(key):
    params = {"a": jax.random.normal(key, (5, 4))}
    support = np.asarray(upload.common_support(params, 0.25))
    assert support.sum() == 5
    magnitudes = np.abs(np.asarray(params["a"]).ravel())
    assert magnitudes[support].min() >= magnitudes[~support].max()


def loss_fn(params, batch):
    inputs, targets = batch
    return jnp.mean((inputs @ params["w"] + params["b"] - targets) ** 2), {}


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(3, 2, 8, 4)), rng.normal(size=(3, 2, 8))
    batches = jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32)
    params = {"w": jnp.asarray(rng.normal(size=4), jnp.float32), "b": jnp.zeros(())}
    return params, lambda at: jax.tree.map(lambda leaf: leaf[:, at], batches)


def moves(problem, steps=1, target=None, **more):
    params, batch_fn = problem
    optimizer = optax.sgd(0.1)
    step = learning.local_step(loss_fn, optimizer, **more)
    return learning.local_training(
        step, learning.clients_start(params, optimizer, 3), batch_fn, steps, params, target or {}
    )


def test_fedavg_of_one_step_is_gradient_descent(problem):
    params, batch_fn = problem
    moved, losses = moves(problem)
    mean = learning.weighted_mean(moved, jnp.ones(3))
    new, _ = learning.server_update(optax.sgd(1.0), params, optax.sgd(1.0).init(params), mean)
    # all clients have as many examples: the mean over clients is that over all examples
    everything = jax.tree.map(lambda leaf: leaf.reshape(24, *leaf.shape[2:]), batch_fn(0))
    gradient = jax.grad(lambda params: loss_fn(params, everything)[0])(params)
    jax.tree.map(lambda a, p, g: np.testing.assert_allclose(a, p - 0.1 * g, atol=1e-6), new, params, gradient)
    np.testing.assert_allclose(losses.mean(), loss_fn(params, everything)[0], rtol=1e-5)


def test_fedprox_and_admm_pull(problem):
    """Two steps by hand: the second gradient has `mu (w - global)` and `rho (w - target)` more."""
    params, batch_fn = problem
    target = {"w": jnp.ones(4)}
    for more, extra in (
        ({"proximal": 0.7}, lambda w: {"w": 0.7 * (w["w"] - params["w"]), "b": 0.7 * (w["b"] - params["b"])}),
        ({"pull": 0.7, "target": target}, lambda w: {"w": 0.7 * (w["w"] - 1), "b": jnp.zeros(())}),
    ):
        moved, _ = moves(problem, steps=2, **more)
        for client in range(3):
            w = params
            for at in range(2):
                batch = jax.tree.map(lambda leaf, client=client: leaf[client], batch_fn(at))
                gradient = jax.grad(lambda p, batch=batch: loss_fn(p, batch)[0])(w)
                w = jax.tree.map(lambda p, g, e: p - 0.1 * (g + e), w, gradient, extra(w))
            mine = jax.tree.map(lambda leaf, client=client: leaf[client], moved)
            jax.tree.map(lambda m, a, p: np.testing.assert_allclose(m, a - p, atol=1e-5), mine, w, params)


def test_weighted_mean():
    moved = {"w": jnp.asarray([[1.0, 2.0], [3.0, 6.0]])}
    assert learning.weighted_mean(moved, jnp.array([1.0, 3.0]))["w"].tolist() == [2.5, 5.0]


def test_dual_update_ends_in_the_set():
    """ADMM on `||w - (0.7, 0.2)||^2 / 2` with one entry that may stay: consensus at (0.7, 0)."""
    wanted = jnp.asarray([0.7, 0.2])
    constraints, leaves = {"w": TopK(1)}, leaves_by_path({"w": wanted, "b": jnp.zeros(1)})
    state = learning.dual_start(leaves, constraints)
    np.testing.assert_allclose(state.projected["w"], [0.7, 0.0])
    for _ in range(40):
        anchor = learning.pull_target(state)
        assert set(anchor) == {"w"}
        leaves = {**leaves, "w": (wanted + 3.0 * anchor["w"]) / 4.0}
        state = learning.dual_update(state, leaves, constraints)
    np.testing.assert_allclose(leaves["w"], [0.7, 0.0], atol=1e-4)
    with pytest.raises(ValueError, match="constraint must be one of 'b', 'w', got 'v'"):
        learning.dual_start(leaves, {"v": TopK(1)})
