"""The step, the loss and the evaluation, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum.train import TrainState, classification_loss, cross_entropy, evaluate, init_state, make_train_step


def reference_losses(logits, labels):
    logits = np.asarray(logits, np.float64)
    top = logits.max(-1, keepdims=True)
    return np.log(np.exp(logits - top).sum(-1)) + top[:, 0] - logits[np.arange(len(labels)), labels]


def linear(params, inputs):
    return inputs @ params["kernel"] + params["bias"][None, :]


@pytest.fixture
def problem(key):
    first, second, third = jax.random.split(key, 3)
    params = {"kernel": jax.random.normal(first, (5, 4)), "bias": jnp.arange(4.0)}
    return params, jax.random.normal(second, (23, 5)), jax.random.randint(third, (23,), 0, 4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_cross_entropy_against_float64(scale, key):
    logits = scale * jax.random.normal(key, (64, 10))
    labels = jax.random.randint(key, (64,), 0, 10)
    expected = reference_losses(logits, np.asarray(labels))
    np.testing.assert_allclose(jax.jit(jax.vmap(cross_entropy))(logits, labels), expected, rtol=2e-6, atol=2e-6)


def test_cross_entropy_gradient_is_softmax_minus_one_hot(key):
    logits = jax.random.normal(key, (10,))
    expected = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum() - np.eye(10)[3]
    np.testing.assert_allclose(jax.grad(cross_entropy)(logits, jnp.int32(3)), expected, atol=1e-6)


def test_classification_loss(problem):
    params, inputs, labels = problem
    loss, extra = classification_loss(linear)(params, (inputs, labels))
    logits = np.float64(inputs) @ np.float64(params["kernel"]) + np.float64(params["bias"])
    np.testing.assert_allclose(loss, reference_losses(logits, np.asarray(labels)).mean(), rtol=1e-5)
    assert float(extra["accuracy"]) == pytest.approx((logits.argmax(-1) == np.asarray(labels)).mean())


def test_a_step_against_numpy(problem):
    """SGD with momentum on a linear classifier, three steps by hand in float64."""
    params, inputs, labels = problem
    optimizer = optax.sgd(0.1, momentum=0.9)
    step = jax.jit(make_train_step(classification_loss(linear), optimizer, has_aux=True))
    state = init_state(params, optimizer)
    kernel, bias, x = np.float64(params["kernel"]), np.float64(params["bias"]), np.float64(inputs)
    trace = [np.zeros_like(kernel), np.zeros_like(bias)]
    for i in range(3):
        state, values = step(state, (inputs, labels))
        logits = x @ kernel + bias
        loss = reference_losses(logits, np.asarray(labels)).mean()
        share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        share = (share - np.eye(4)[np.asarray(labels)]) / len(labels)
        gradients = [x.T @ share, share.sum(0)]
        trace = [0.9 * past + gradient for past, gradient in zip(trace, gradients, strict=True)]
        kernel, bias = kernel - 0.1 * trace[0], bias - 0.1 * trace[1]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        np.testing.assert_allclose(values["loss"], loss, rtol=1e-5)
        np.testing.assert_allclose(values["gradient_norm"], norm, rtol=1e-5)
        assert int(state.step) == i + 1
    np.testing.assert_allclose(state.params["kernel"], kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.params["bias"], bias, rtol=1e-5, atol=1e-6)


def test_a_step_is_pure_and_maps_over_seeds(problem, key):
    params, inputs, labels = problem
    optimizer = optax.adam(1e-2)
    step = make_train_step(classification_loss(linear), optimizer, has_aux=True)

    @jax.jit
    @jax.vmap
    def start(seed):
        moved = jax.tree.map(lambda leaf: leaf + jax.random.normal(seed, leaf.shape), params)
        return init_state(moved, optimizer)

    states = start(jax.random.split(key, 3))
    together, values = jax.jit(jax.vmap(step, in_axes=(0, None)))(states, (inputs, labels))
    step = jax.jit(step)
    assert isinstance(together, TrainState)
    assert values["loss"].shape == (3,)
    for i in range(3):
        one, _ = step(jax.tree.map(lambda leaf, i=i: leaf[i], states), (inputs, labels))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-5, atol=1e-6)


def test_plain_loss_without_metrics():
    step = make_train_step(lambda params, batch: ((params - batch) ** 2).sum(), optax.sgd(0.25))
    state, values = step(init_state(jnp.array([3.0, 0.0]), optax.sgd(0.25)), jnp.array([1.0, 0.0]))
    assert set(values) == {"loss", "gradient_norm"}
    assert state.params.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("batch", [1, 5, 22, 23, 1000])
def test_evaluate_counts_each_example_once(problem, batch):
    params, inputs, labels = problem
    found = evaluate(linear, params, inputs, labels, batch=batch)
    logits = np.float64(inputs) @ np.float64(params["kernel"]) + np.float64(params["bias"])
    assert found["correct"] == (logits.argmax(-1) == np.asarray(labels)).sum()
    assert found["accuracy"] == found["correct"] / 23
    assert found["examples"] == 23
    np.testing.assert_allclose(found["loss"], reference_losses(logits, np.asarray(labels)).mean(), rtol=1e-5)


def test_evaluate_compiles_once(problem):
    params, inputs, labels = problem
    traces = []

    def apply_fn(params, inputs):
        traces.append(inputs.shape)
        return linear(params, inputs)

    for _ in range(2):
        evaluate(apply_fn, params, np.asarray(inputs), np.asarray(labels), batch=7)
    assert traces == [(7, 5)]


def test_evaluate_refuses_nothing_and_other_lengths(problem):
    params, inputs, labels = problem
    with pytest.raises(ValueError, match="at least 1 inputs, got 0 for 0"):
        evaluate(linear, params, inputs[:0], labels[:0])
    with pytest.raises(ValueError, match="got 22 for 23"):
        evaluate(linear, params, inputs, labels[:22])
    with pytest.raises(ValueError, match="batch must be"):
        evaluate(linear, params, inputs, labels, batch=0)


def test_a_weak_type_is_gone_before_the_first_step():
    """Else it would be gone after it, and every program compiled a second time."""
    state = init_state({"scale": jnp.full((2,), 1.0), "plain": jnp.ones(3)}, optax.adam(1e-3))
    assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state))
    assert jax.typeof(jnp.full((2,), 1.0)).weak_type
